package state

import (
	"encoding/json"
	"fmt"
)

// Bucket names a bucket of records of type T, kept as JSON. It holds no
// resources: any number of values may name one bucket.
type Bucket[T any] struct {
	name string
}

// NewBucket returns the bucket of that name. Names that begin with "_" are this
// package's own.
func NewBucket[T any](name string) Bucket[T] { return Bucket[T]{name: name} }

// Get returns the record under key, or ErrNotFound.
func (b Bucket[T]) Get(tx *Tx, key string) (T, error) {
	var record T
	value, err := tx.Raw(b.name).Get(key)
	if err != nil {
		return record, err
	}
	if value == nil {
		return record, fmt.Errorf("get %s/%s: %w", b.name, key, ErrNotFound)
	}
	return b.decode(key, value)
}

// Put stores record under key, which is not empty.
func (b Bucket[T]) Put(tx *Tx, key string, record T) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode %s/%s: %w", b.name, key, err)
	}
	return tx.Raw(b.name).Put(key, value)
}

// Delete removes the record under key. One that is not there is no error.
func (b Bucket[T]) Delete(tx *Tx, key string) error { return tx.Raw(b.name).Delete(key) }

// ForEach calls fn for each record in byte order of the keys, and stops at its
// first error, which it returns. fn changes nothing in this bucket.
func (b Bucket[T]) ForEach(tx *Tx, fn func(key string, record T) error) error {
	return tx.Raw(b.name).ForEach(func(key string, value []byte) error {
		record, err := b.decode(key, value)
		if err != nil {
			return err
		}
		return fn(key, record)
	})
}

// decode returns ErrDamaged for a value that is no T. Its checksum was right, so
// a version of the program wrote it that this one does not understand.
func (b Bucket[T]) decode(key string, value []byte) (T, error) {
	var record T
	if err := json.Unmarshal(value, &record); err != nil {
		return record, fmt.Errorf("decode %s/%s: %w: %w", b.name, key, ErrDamaged, err)
	}
	return record, nil
}
