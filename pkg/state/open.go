package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// schema is the version of what the file holds. A program reads its own
	// and refuses others.
	schema = 1

	ownBucket = "_state"
	schemaKey = "schema"

	// DefaultTimeout is how long Open waits for another process.
	DefaultTimeout = 2 * time.Second

	// mapSize is what is mapped from the start, in bytes of address space. A
	// writer that outgrows the map has to wait for every reader.
	mapSize = 64 << 20

	// growSize is how much longer a file that is full becomes, in bytes.
	growSize = 1 << 20
)

// Options say which database to open.
type Options struct {
	// Path of the file. Its directory is made with mode 0700 if need be.
	Path string
	// Timeout for another process to let go of the file; 0 means
	// DefaultTimeout.
	Timeout time.Duration
	// ObserveCommit, if set, is told how long each commit took and its error; of ErrInDoubt, with each
	// transaction that is refused for it.
	// It is called before the next transaction may write.
	ObserveCommit func(time.Duration, error)

	maxSize int // bytes the file may grow to; tests make commits fail with it
}

// Open opens the database, and makes one where no file is. The caller closes it.
//
// Errors: ErrLocked (a *LockedError), ErrDamaged (a *DamagedError), ErrSchema,
// and those of the file system.
func Open(o Options) (*DB, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	f, err := openFile(o.Path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", o.Path, err)
	}
	if err := prepare(f, o); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b, err := openBolt(f, o)
	if err != nil {
		return nil, err
	}
	db := &DB{path: o.Path, bolt: b, observe: o.ObserveCommit}
	if err := db.View(checkSchema); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", o.Path, err), db.Close())
	}
	return db, nil
}

// openFile opens the file and creates it when it does not exist.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := create(path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// prepare locks the file and looks through it.
func prepare(f *os.File, o Options) error {
	if err := lock(f, o.Timeout); err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil {
		return fmt.Errorf("open database %s: %w", o.Path, err)
	}
	if err := removeLeftovers(o.Path); err != nil {
		return fmt.Errorf("open database %s: %w", o.Path, err)
	}
	return inspect(f)
}

// openBolt hands the locked and inspected file to bbolt, which closes it. The
// list of free pages is not stored: bbolt finds them when it opens the file, and
// each commit writes less.
func openBolt(f *os.File, o Options) (b *bolt.DB, err error) {
	defer func() {
		// inspect leaves nothing for bbolt to stumble over; should the two
		// disagree, that is an error and not the end of the daemon.
		if r := recover(); r != nil {
			b, err = nil, errors.Join(&DamagedError{Path: o.Path, Detail: fmt.Sprint(r)}, f.Close())
		}
	}()
	b, err = bolt.Open(o.Path, 0o600, &bolt.Options{
		Timeout:         o.Timeout,
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mapSize,
		MaxSize:         o.maxSize,
		OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	})
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", o.Path, err)
	}
	b.AllocSize = growSize
	return b, nil
}

func checkSchema(tx *Tx) error {
	value, err := tx.Raw(ownBucket).Get(schemaKey)
	if err != nil {
		return err
	}
	if value == nil {
		return &DamagedError{Path: tx.db.path, Detail: "it has no schema version"}
	}
	if string(value) != strconv.Itoa(schema) {
		return fmt.Errorf("schema %q, this program reads %d: %w", value, schema, ErrSchema)
	}
	return nil
}

// create makes a database under another name and gives it its own when it is
// whole and on disk, so that a crash leaves either no file or a good one. One
// that appears meanwhile is kept.
func create(path string) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+leftoverSuffix+"*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeIfThere(tmp.Name())) }()
	b, err := openBolt(tmp, Options{Path: tmp.Name()})
	if err != nil {
		return err
	}
	db := &DB{path: path, bolt: b}
	err = db.Update(func(tx *Tx) error {
		return tx.Raw(ownBucket).Put(schemaKey, []byte(strconv.Itoa(schema)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		if _, statErr := os.Stat(path); statErr != nil {
			return err
		}
	}
	return syncDir(dir)
}

const leftoverSuffix = ".new-"

// removeLeftovers removes what a create that was killed left. The database
// exists and is locked, so whoever creates it now does so in vain.
func removeLeftovers(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), filepath.Base(path)+leftoverSuffix) {
			err = errors.Join(err, removeIfThere(filepath.Join(filepath.Dir(path), entry.Name())))
		}
	}
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
