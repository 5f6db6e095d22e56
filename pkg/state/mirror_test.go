package state_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/state"
)

type mirrored struct {
	*state.Table[guest]
	db       *state.DB
	dir      string
	failures []error
}

func openMirrored(t testing.TB, path, dir string) *mirrored {
	t.Helper()
	m := &mirrored{dir: dir}
	mirror, err := state.OpenMirror(dir, func(err error) { m.failures = append(m.failures, err) })
	if err != nil {
		t.Fatal(err)
	}
	if m.db, err = state.Open(state.Options{Path: path}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.db.Close() })
	m.Table, err = state.OpenTable[guest](state.TableOptions{
		DB: m.db, Mirror: mirror, Rows: "guests", Names: "rooms", NotFound: errNoGuest, Ambiguous: errWho,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// want checks what the files tell, and which of them are damaged.
func (m *mirrored) want(t *testing.T, damaged int, want ...string) {
	t.Helper()
	rows, errs, err := state.ReadMirror[guest](m.dir)
	var got []string
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		got = append(got, id+"="+rows[id].Room)
	}
	if err != nil || len(errs) != damaged || !slices.Equal(got, want) {
		t.Errorf("the files tell of %v, want %v; %v, %v", got, want, errs, err)
	}
}

func all(string) bool  { return true }
func none(string) bool { return false }

func TestMirrorFollowsCommits(t *testing.T) {
	m := openMirrored(t, filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "guests"))
	save(t, m.Table, guest{ID: "1", Room: "north"}, guest{ID: "2", Room: "south"})
	if _, err := m.Change("2", func(g *guest) { g.Room = "west" }); err != nil {
		t.Fatal(err)
	}
	m.want(t, 0, "1=north", "2=west")
	stop := errors.New("stop")
	err := m.db.Update(func(tx *state.Tx) error {
		return errors.Join(m.Put(tx, guest{ID: "1", Room: "never"}), m.Delete(tx, guest{ID: "2"}), stop)
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	m.want(t, 0, "1=north", "2=west")
	if err := m.db.Update(func(tx *state.Tx) error { return m.Delete(tx, guest{ID: "1", Room: "north"}) }); err != nil {
		t.Fatal(err)
	}
	m.want(t, 0, "2=west")
}

func TestSyncMirror(t *testing.T) {
	path, dir := filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "guests")
	m := openMirrored(t, path, dir)
	save(t, m.Table, guest{ID: "1", Room: "north"}, guest{ID: "2", Room: "south"}, guest{ID: "3", Room: "west"})
	if err := m.db.Close(); err != nil {
		t.Fatal(err)
	}
	// As a kill between commit and file leaves it, and worse.
	one, err := os.ReadFile(filepath.Join(dir, "1.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"2.json": strings.Replace(string(one), "north", "south", 1), // another's, with a wrong checksum
		"9.json": string(one),                                       // of nobody
		"0.txt":  "not ours",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "3.json")); err != nil {
		t.Fatal(err)
	}
	m.want(t, 2, "1=north")
	m = openMirrored(t, path, dir)
	if err := m.SyncMirror(all); err != nil {
		t.Fatal(err)
	}
	m.want(t, 1, "1=north", "2=south", "3=west")
	if err := m.SyncMirror(none); err != nil {
		t.Fatal(err)
	}
	m.want(t, 0, "1=north", "2=south", "3=west")
	if _, err := os.Stat(filepath.Join(dir, "0.txt")); err != nil || len(m.failures) > 0 {
		t.Errorf("%v, %v", err, m.failures)
	}
}

// TestMirrorThatCannotBeWritten fails no transaction, says so, and is made good.
// TestFileThatAKillLeftUnfinished is gone when the mirror is opened next; the others stay.
func TestFileThatAKillLeftUnfinished(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "guests")
	m := openMirrored(t, filepath.Join(t.TempDir(), "db"), dir)
	save(t, m.Table, guest{ID: "1", Room: "north"})
	unfinished, other := filepath.Join(dir, "2.json.new"), filepath.Join(dir, "note.new")
	for _, path := range []string{unfinished, other} {
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := state.OpenMirror(dir, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(unfinished); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unfinished file: %v, want none", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("the file of another: %v", err)
	}
	m.want(t, 0, "1=north")
}

func TestMirrorThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "guests")
	m := openMirrored(t, filepath.Join(t.TempDir(), "db"), dir)
	if err := m.SyncMirror(none); err != nil {
		t.Fatal(err)
	}
	obstacle := filepath.Join(dir, "1.json.new", "in the way")
	if err := os.MkdirAll(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	save(t, m.Table, guest{ID: "1", Room: "north"})
	if len(m.failures) != 1 || !strings.Contains(m.failures[0].Error(), "1.json") {
		t.Errorf("failures %v", m.failures)
	}
	m.want(t, 0)
	if err := errors.Join(os.Remove(obstacle), os.Remove(filepath.Dir(obstacle))); err != nil {
		t.Fatal(err)
	}
	if err := m.SyncMirror(none); err != nil {
		t.Fatal(err)
	}
	m.want(t, 0, "1=north")
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path, with := filepath.Join(dir, "state.db"), filepath.Join(dir, "other.db")
	write := func(path, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) string {
		content, _ := os.ReadFile(path)
		return string(content)
	}
	write(path, "old")
	write(with, "new")
	seized, err := state.Seize(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.Seize(path); !errors.Is(err, state.ErrLocked) {
		t.Errorf("seized twice: %v", err)
	}
	if err := seized.Replace(with, path+".old"); err != nil {
		t.Fatal(err)
	}
	if read(path) != "new" || read(path+".old") != "old" || read(with) != "" {
		t.Errorf("%q, %q, %q", read(path), read(path+".old"), read(with))
	}
	write(with, "newer")
	if err := seized.Replace(with, path+".old"); err == nil || read(path) != "new" || read(path+".old") != "old" {
		t.Errorf("over what is kept: %v, %q, %q", err, read(path), read(path+".old"))
	}
	if err := seized.Close(); err != nil {
		t.Error(err)
	}
	gone, err := state.Seize(filepath.Join(dir, "gone.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(gone.Replace(with, ""), gone.Close()); err != nil || read(filepath.Join(dir, "gone.db")) != "newer" {
		t.Errorf("where nothing was: %v", err)
	}
}

// TestVerifyReadsEveryRecord: a value that is other than it was written makes the database a damaged one.
func TestVerifyReadsEveryRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openDB(t, path)
	save(t, openTable(t, db), guest{ID: "1", Room: "corner room"})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := state.Verify(path); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.ReplaceAll(string(content), `"Room":"corner`, `"Room":"garden`)
	if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := state.Verify(path); !errors.Is(err, state.ErrDamaged) || !strings.Contains(err.Error(), "pool rebuild") {
		t.Errorf("a turned byte: %v", err)
	}
	if err := state.Verify(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
