package state

import (
	"errors"
	"fmt"
)

// What a caller can do about an error is told by these; use errors.Is.
var (
	// ErrNotFound: the bucket has no such key.
	ErrNotFound = errors.New("no such record")

	// ErrLocked: another process has the database open. See LockedError.
	ErrLocked = errors.New("database is in use")

	// ErrDamaged: the file is no database, is cut short, or a record in it
	// cannot be read. See DamagedError.
	ErrDamaged = errors.New("database is damaged")

	// ErrSchema: the file was written by a version of the program that this one
	// cannot read.
	ErrSchema = errors.New("database schema is not supported")

	// ErrInDoubt: the disk failed while a transaction was committed, and
	// nobody can tell whether it survives a crash. The database takes nothing
	// more until it is opened again, which reads what the disk holds.
	ErrInDoubt = errors.New("outcome of a commit is unknown, the database must be opened again")
)

// LockedError names who has the database open. It is an ErrLocked.
type LockedError struct {
	Path   string
	Holder string // such as "process 4711 (userns-shim)"
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("open database %s: in use by %s; one daemon at a time can use it", e.Path, e.Holder)
}

// Unwrap makes the error an ErrLocked.
func (e *LockedError) Unwrap() error { return ErrLocked }

// DamagedError says what is wrong with the file and what to do. It is an
// ErrDamaged.
type DamagedError struct {
	Path   string
	Detail string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("database %s is damaged: %s. It is left as it is. Run `userns-shim pool rebuild`: it makes the database again "+
		"from what runs on the node, stops no pod, and keeps the damaged file aside. A good copy of the file, put in its place, does as well", e.Path, e.Detail)
}

// Unwrap makes the error an ErrDamaged.
func (e *DamagedError) Unwrap() error { return ErrDamaged }
