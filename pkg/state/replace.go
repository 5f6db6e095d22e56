package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Verify opens a database, which reads all of it, and closes it again. Errors are those of Open; fs.ErrNotExist says that there
// is none.
func Verify(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("verify database: %w", err)
	}
	db, err := Open(Options{Path: path})
	if err != nil {
		return err
	}
	return db.Close()
}

// Seized is a database file that nobody else can open, whatever is in it.
type Seized struct {
	path string
	file *os.File // nil where there is no file
}

// Seize locks the file as Open does. It returns a *LockedError while somebody has it open; a file that is not
// there is fine.
func Seize(path string) (*Seized, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return &Seized{path: path}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("seize database: %w", err)
	}
	if err := lock(f, DefaultTimeout); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Seized{path: path, file: f}, nil
}

// Replace puts another file in the place of the database. The old one keeps existing under the name aside, which must
// not be taken. At every moment there is one of the two at the database's path.
func (s *Seized) Replace(with, aside string) error {
	if s.file != nil {
		if err := os.Link(s.path, aside); err != nil {
			return fmt.Errorf("keep the old database aside: %w", err)
		}
	}
	if err := os.Rename(with, s.path); err != nil {
		return fmt.Errorf("put the new database in place: %w", err)
	}
	return syncDir(filepath.Dir(s.path))
}

// Close lets others open the file.
func (s *Seized) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
