package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Mirror is a copy of a table outside of the database: a directory with a file for each row, from which a database that
// was lost can be made again. Files are replaced as a whole and carry a checksum; they are not synced, so the directory
// belongs where nothing outlives a reboot.
//
// A row's file follows its commit. When the process is killed in between, the file is one change behind.
type Mirror struct {
	dir    string
	failed func(error)

	mu    sync.Mutex
	stale map[string]bool // keys whose file could not be written
	known bool            // every other file was seen to be right
}

const (
	// mirrorSuffix is what the files' names end in; others are left alone.
	mirrorSuffix = ".json"
	// unfinishedSuffix comes after it while a file is written.
	unfinishedSuffix = ".new"
)

// OpenMirror makes the directory if need be, and removes files that a killed process did not finish: nobody else may write
// there. It is told what could not be written, which fails no transaction: the next change of the same row, or Sync, tries
// again.
func OpenMirror(dir string, failed func(error)) (*Mirror, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of records: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read records outside of the database: %w", err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), mirrorSuffix+unfinishedSuffix) {
			continue
		}
		if err := removeIfThere(filepath.Join(dir, entry.Name())); err != nil {
			return nil, fmt.Errorf("remove unfinished record outside of the database: %w", err)
		}
	}
	return &Mirror{dir: dir, failed: failed, stale: map[string]bool{}}, nil
}

func (m *Mirror) path(key string) string { return filepath.Join(m.dir, key+mirrorSuffix) }

// put writes the file of a row, or notes that it is stale.
func (m *Mirror) put(key string, value []byte) {
	m.note(key, replaceFile(m.path(key), seal(filepath.Base(m.dir), key, value)))
}

func (m *Mirror) remove(key string) { m.note(key, removeIfThere(m.path(key))) }

func (m *Mirror) note(key string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(m.stale, key)
		return
	}
	m.stale[key] = true
	m.failed(fmt.Errorf("keep record of %s outside of the database: %w", key, err))
}

// replaceFile gives the path new content at once.
func replaceFile(path string, content []byte) error {
	temporary := path + unfinishedSuffix
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return errors.Join(err, removeIfThere(temporary))
	}
	return os.Rename(temporary, path)
}

// behind says whether files may differ from rows.
func (m *Mirror) behind() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.known || len(m.stale) > 0
}

// keys are those of the files that are there.
func (m *Mirror) keys() ([]string, error) { return mirrorKeys(m.dir) }

func mirrorKeys(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var keys []string
	for _, entry := range entries {
		if key, ok := strings.CutSuffix(entry.Name(), mirrorSuffix); ok {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// same says whether the file of a row holds the value.
func (m *Mirror) same(key string, value []byte) bool {
	have, err := os.ReadFile(m.path(key))
	return err == nil && bytes.Equal(have, seal(filepath.Base(m.dir), key, value))
}

// ReadMirror returns the rows of a mirror by key, and what is wrong with files that cannot be read. A directory that is
// not there holds none.
func ReadMirror[R Row](dir string) (rows map[string]R, damaged []error, err error) {
	keys, err := mirrorKeys(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read records outside of the database: %w", err)
	}
	rows = map[string]R{}
	for _, key := range keys {
		row, err := readMirrored[R](dir, key)
		if err != nil {
			damaged = append(damaged, fmt.Errorf("record %s: %w", filepath.Join(dir, key+mirrorSuffix), err))
			continue
		}
		rows[key] = row
	}
	return rows, damaged, nil
}

func readMirrored[R Row](dir, key string) (row R, err error) {
	content, err := os.ReadFile(filepath.Join(dir, key+mirrorSuffix))
	if err != nil {
		return row, err
	}
	value, err := unseal(filepath.Base(dir), key, content)
	if err != nil {
		return row, err
	}
	if err := json.Unmarshal(value, &row); err != nil {
		return row, err
	}
	if row.Key() != key {
		return row, fmt.Errorf("it is of %s", row.Key())
	}
	return row, nil
}

// SyncMirror writes the files of rows that have another or none, and removes those without a row of which keep does not say
// that something is left: when the database was lost, they are all that tells of it.
func (t *Table[R]) SyncMirror(keep func(key string) bool) error {
	if t.opts.Mirror == nil {
		return nil
	}
	keys, err := t.opts.Mirror.keys()
	if err != nil {
		return fmt.Errorf("read records outside of the database: %w", err)
	}
	// No transaction comes between a row and its file.
	t.opts.DB.mu.Lock()
	defer t.opts.DB.mu.Unlock()
	for _, key := range keys {
		if !t.Has(key) && !keep(key) {
			t.opts.Mirror.remove(key)
		}
	}
	if !t.opts.Mirror.behind() {
		return nil
	}
	return t.writeMirror()
}

// writeMirror writes every file that is not as its row.
func (t *Table[R]) writeMirror() error {
	for _, row := range t.All() {
		value, err := json.Marshal(row)
		if err != nil {
			return fmt.Errorf("encode %s/%s: %w", t.opts.Rows, row.Key(), err)
		}
		if !t.opts.Mirror.same(row.Key(), value) {
			t.opts.Mirror.put(row.Key(), value)
		}
	}
	t.opts.Mirror.mu.Lock()
	defer t.opts.Mirror.mu.Unlock()
	t.opts.Mirror.known = true
	return nil
}
