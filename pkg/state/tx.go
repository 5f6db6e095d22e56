package state

import (
	"bytes"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// Tx is an open transaction. It belongs to the goroutine whose function Update
// or View called, and ends with that function.
type Tx struct {
	db       *DB
	bolt     *bolt.Tx
	commit   []func()
	rollback []func()
}

// OnRollback registers fn to run if the transaction does not commit: because its
// function or the commit failed, or it panicked. Hooks run in the reverse order
// of registration, before another transaction may write, and must not call
// Update.
func (tx *Tx) OnRollback(fn func()) { tx.rollback = append(tx.rollback, fn) }

// OnCommit registers fn to run once the transaction is durable. Hooks run in the
// order of registration, before another transaction may write, and must not call
// Update.
func (tx *Tx) OnCommit(fn func()) { tx.commit = append(tx.commit, fn) }

func (tx *Tx) committed() {
	for _, fn := range tx.commit {
		fn()
	}
}

func (tx *Tx) rolledBack() {
	for _, fn := range slices.Backward(tx.rollback) {
		fn()
	}
}

// Raw returns the bucket of that name without a type, for owners that encode
// their records themselves. It exists from the first Put on.
func (tx *Tx) Raw(name string) *Raw { return &Raw{tx: tx, name: name} }

// Raw is a bucket of bytes within a transaction, and ends with it.
type Raw struct {
	tx   *Tx
	name string
}

// Get returns the value under key, nil when there is none. The caller owns it.
func (r *Raw) Get(key string) ([]byte, error) {
	b := r.tx.bolt.Bucket([]byte(r.name))
	if b == nil {
		return nil, nil
	}
	sealed := b.Get([]byte(key))
	if sealed == nil {
		return nil, nil
	}
	value, err := unseal(r.name, key, sealed)
	if err != nil {
		return nil, r.damaged(key, err)
	}
	return bytes.Clone(value), nil
}

// Put stores value under key, which is not empty.
func (r *Raw) Put(key string, value []byte) error {
	b, err := r.tx.bolt.CreateBucketIfNotExists([]byte(r.name))
	if err != nil {
		return fmt.Errorf("open bucket %s for writing: %w", r.name, err)
	}
	if err := b.Put([]byte(key), seal(r.name, key, value)); err != nil {
		return fmt.Errorf("put %s/%s: %w", r.name, key, err)
	}
	return nil
}

// Delete removes key. A key that is not there is no error.
func (r *Raw) Delete(key string) error {
	b := r.tx.bolt.Bucket([]byte(r.name))
	if b == nil {
		return nil
	}
	if err := b.Delete([]byte(key)); err != nil {
		return fmt.Errorf("delete %s/%s: %w", r.name, key, err)
	}
	return nil
}

// ForEach calls fn for each key in byte order, and stops at its first error,
// which it returns. The value is valid until fn returns; fn changes nothing in
// this bucket.
func (r *Raw) ForEach(fn func(key string, value []byte) error) error {
	b := r.tx.bolt.Bucket([]byte(r.name))
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, sealed []byte) error {
		value, err := unseal(r.name, string(k), sealed)
		if err != nil {
			return r.damaged(string(k), err)
		}
		return fn(string(k), value)
	})
}

// OnRollback is that of the transaction.
func (r *Raw) OnRollback(fn func()) { r.tx.OnRollback(fn) }

func (r *Raw) damaged(key string, err error) error {
	return &DamagedError{Path: r.tx.db.path, Detail: fmt.Sprintf("record %s/%s: %v", r.name, key, err)}
}
