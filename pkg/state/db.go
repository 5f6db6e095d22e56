package state

import (
	"fmt"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// DB is an open database. Its methods may be called from any goroutine.
type DB struct {
	path    string
	bolt    *bolt.DB
	observe func(time.Duration, error)

	// mu is held from before a writing transaction begins until its hooks have
	// run: bbolt's own lock is let go of before them.
	mu    sync.Mutex
	doubt error // set once, when a commit's outcome is unknown
}

// Path returns the file's name, as given to Open.
func (db *DB) Path() string { return db.path }

// Close waits for open transactions and closes the file.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := db.bolt.Close(); err != nil {
		return fmt.Errorf("close database %s: %w", db.path, err)
	}
	return nil
}

// View calls fn with a transaction that reads one consistent state, beside
// others and a writer. It returns fn's error.
func (db *DB) View(fn func(*Tx) error) error {
	return db.bolt.View(func(btx *bolt.Tx) error { return fn(&Tx{db: db, bolt: btx}) })
}

// Update calls fn with a transaction that writes, one at a time, and commits.
// When it returns nil the changes are on disk; otherwise there are none, and it
// returns fn's error, the commit's, or ErrInDoubt. fn must not call Update, nor
// wait for somebody who does.
func (db *DB) Update(fn func(*Tx) error) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.doubt != nil {
		db.report(0, db.doubt) // who watches commits has to see that there are none
		return db.doubt
	}
	btx, err := db.bolt.Begin(true)
	if err != nil {
		return fmt.Errorf("begin transaction in %s: %w", db.path, err)
	}
	tx := &Tx{db: db, bolt: btx}
	done := false
	defer func() {
		if !done { // fn failed or panicked, or the commit did
			_ = btx.Rollback() // ErrTxClosed after a commit that failed
			tx.rolledBack()
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if err := db.commit(btx); err != nil {
		return err
	}
	done = true
	tx.committed()
	return nil
}

// commit commits btx.
func (db *DB) commit(btx *bolt.Tx) error {
	id, start := btx.ID(), time.Now()
	err := btx.Commit()
	db.report(time.Since(start), err)
	if err != nil {
		return db.judge(id, fmt.Errorf("commit to %s: %w", db.path, err))
	}
	return nil
}

func (db *DB) report(took time.Duration, err error) {
	if db.observe != nil {
		db.observe(took, err)
	}
}

// judge returns the error of the failed commit of transaction id, and sets
// db.doubt when it failed after the point of no return: the new meta page is in
// the file, but perhaps not on the disk. A full disk fails before that point.
func (db *DB) judge(id int, err error) error {
	visible := 0
	readErr := db.bolt.View(func(now *bolt.Tx) error {
		visible = now.ID()
		return nil
	})
	if readErr == nil && visible < id {
		return err
	}
	db.doubt = fmt.Errorf("%w: %w", err, ErrInDoubt)
	return db.doubt
}
