package state

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Row is a record that a Table keeps. The methods tell of the record what the table goes by.
type Row interface {
	// Key is the id, which never changes. See NewID.
	Key() string
	// Name belongs to one row at a time.
	Name() string
	// Created orders lists.
	Created() time.Time
	// Hidden rows are those that clients do not see yet.
	Hidden() bool
}

// TableOptions say where a table is and how it speaks of its rows; all fields are required but Mirror.
type TableOptions struct {
	DB *DB
	// Rows and Names are the buckets of the rows by id and of the ids by name.
	Rows, Names string
	// NotFound and Ambiguous are the errors of Get, which clients see.
	NotFound, Ambiguous error
	// Mirror, where it is set, has a copy of every row. See SyncMirror.
	Mirror *Mirror
}

// Table is a bucket of rows whose names are unique. Readers are served from memory, which shows
// what has been committed and nothing else.
type Table[R Row] struct {
	opts  TableOptions
	rows  Bucket[R]
	names Bucket[string]

	mu     sync.RWMutex
	cached map[string]R
}

// OpenTable reads the rows that are there.
func OpenTable[R Row](opts TableOptions) (*Table[R], error) {
	t := &Table[R]{
		opts:   opts,
		rows:   NewBucket[R](opts.Rows),
		names:  NewBucket[string](opts.Names),
		cached: map[string]R{},
	}
	err := opts.DB.View(func(tx *Tx) error {
		return t.rows.ForEach(tx, func(id string, row R) error {
			t.cached[id] = row
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", opts.Rows, err)
	}
	return t, nil
}

// Get finds a row that is not hidden by its id or a unique prefix of it. The errors are
// NotFound and Ambiguous of the options.
func (t *Table[R]) Get(id string) (R, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if row, ok := t.cached[id]; ok && !row.Hidden() {
		return row, nil
	}
	var none R
	var found []R
	for key, row := range t.cached {
		if id != "" && strings.HasPrefix(key, id) && !row.Hidden() {
			found = append(found, row)
		}
	}
	switch len(found) {
	case 0:
		return none, fmt.Errorf("%w: %q", t.opts.NotFound, id)
	case 1:
		return found[0], nil
	}
	return none, fmt.Errorf("%w: %q names %d", t.opts.Ambiguous, id, len(found))
}

// Has tells whether there is a row of the id, hidden or not.
func (t *Table[R]) Has(id string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, ok := t.cached[id]
	return ok
}

// Find returns the row of exactly this id, hidden or not.
func (t *Table[R]) Find(id string) (R, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	row, ok := t.cached[id]
	return row, ok
}

// All returns every row, hidden ones included, in no order.
func (t *Table[R]) All() []R {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Values(t.cached))
}

// ForEach calls fn for every row as the transaction sees it, hidden ones included. Other transactions that have
// changed rows are in it, which All cannot promise.
func (t *Table[R]) ForEach(tx *Tx, fn func(R) error) error {
	return t.rows.ForEach(tx, func(_ string, row R) error { return fn(row) })
}

// List returns the rows that are not hidden, the oldest first.
func (t *Table[R]) List() []R {
	rows := slices.DeleteFunc(t.All(), R.Hidden)
	slices.SortFunc(rows, func(a, b R) int {
		return cmp.Or(a.Created().Compare(b.Created()), strings.Compare(a.Key(), b.Key()))
	})
	return rows
}

// Reserve takes row's name for it and records it. When the name is taken already, its holder is returned
// and nothing changes.
func (t *Table[R]) Reserve(tx *Tx, row R) (holder R, taken bool, err error) {
	id, err := t.names.Get(tx, row.Name())
	if errors.Is(err, ErrNotFound) {
		return holder, false, errors.Join(t.names.Put(tx, row.Name(), row.Key()), t.Put(tx, row))
	}
	if err != nil {
		return holder, false, err
	}
	holder, err = t.rows.Get(tx, id)
	return holder, true, err
}

// Put records a row in a transaction; readers see it once that is durable.
func (t *Table[R]) Put(tx *Tx, row R) error {
	value, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode %s/%s: %w", t.opts.Rows, row.Key(), err)
	}
	tx.OnCommit(func() {
		t.mu.Lock()
		t.cached[row.Key()] = row
		t.mu.Unlock()
		if t.opts.Mirror != nil {
			t.opts.Mirror.put(row.Key(), value)
		}
	})
	return tx.Raw(t.opts.Rows).Put(row.Key(), value)
}

// Save is Put in a transaction of its own.
func (t *Table[R]) Save(row R) error {
	err := t.opts.DB.Update(func(tx *Tx) error { return t.Put(tx, row) })
	if err != nil {
		return fmt.Errorf("record %s in %s: %w", row.Key(), t.opts.Rows, err)
	}
	return nil
}

// Change commits what fn does to a row as it is by then, so that two who change different parts of a row do
// not undo each other, and returns the changed row.
func (t *Table[R]) Change(id string, fn func(*R)) (row R, err error) {
	err = t.opts.DB.Update(func(tx *Tx) error {
		if row, err = t.rows.Get(tx, id); err != nil {
			return err
		}
		fn(&row)
		return t.Put(tx, row)
	})
	if err != nil {
		var none R
		return none, fmt.Errorf("record %s in %s: %w", id, t.opts.Rows, err)
	}
	return row, nil
}

// Delete removes a row, and frees its name if it is still the row's.
func (t *Table[R]) Delete(tx *Tx, row R) error {
	tx.OnCommit(func() {
		t.mu.Lock()
		delete(t.cached, row.Key())
		t.mu.Unlock()
		if t.opts.Mirror != nil {
			t.opts.Mirror.remove(row.Key())
		}
	})
	return errors.Join(t.release(tx, row), t.rows.Delete(tx, row.Key()))
}

func (t *Table[R]) release(tx *Tx, row R) error {
	id, err := t.names.Get(tx, row.Name())
	if errors.Is(err, ErrNotFound) || err == nil && id != row.Key() {
		return nil
	}
	if err != nil {
		return err
	}
	return t.names.Delete(tx, row.Name())
}

// NewID returns 64 hex digits, the form that a node's tools expect of a container's id.
func NewID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return hex.EncodeToString(b[:])
}

// Same compares two values by what would be recorded of them.
func Same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
