package state_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/state"
)

// guest is a row: it has a room, which nobody else may have.
type guest struct {
	ID      string
	Room    string
	Arrived time.Time
	Unseen  bool
	Visits  int
}

func (g guest) Key() string        { return g.ID }
func (g guest) Name() string       { return g.Room }
func (g guest) Created() time.Time { return g.Arrived }
func (g guest) Hidden() bool       { return g.Unseen }

var (
	errNoGuest = errors.New("no such guest")
	errWho     = errors.New("which guest")
)

func openTable(t *testing.T, db *state.DB) *state.Table[guest] {
	t.Helper()
	table, err := state.OpenTable[guest](state.TableOptions{
		DB: db, Rows: "guests", Names: "rooms", NotFound: errNoGuest, Ambiguous: errWho,
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func openDB(t *testing.T, path string) *state.DB {
	t.Helper()
	db, err := state.Open(state.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // a second Close of those that the test has closed
	return db
}

func save(t *testing.T, table *state.Table[guest], rows ...guest) {
	t.Helper()
	for _, row := range rows {
		if err := table.Save(row); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTableGetTakesUniquePrefixes(t *testing.T) {
	table := openTable(t, openDB(t, filepath.Join(t.TempDir(), "db")))
	save(t, table, guest{ID: "aa11"}, guest{ID: "aa22"}, guest{ID: "aa"}, guest{ID: "bb33", Unseen: true})
	for id, want := range map[string]string{"aa11": "aa11", "aa1": "aa11", "aa": "aa"} {
		if got, err := table.Get(id); err != nil || got.ID != want {
			t.Errorf("Get(%q) gives %q, %v, want %q", id, got.ID, err, want)
		}
	}
	for id, want := range map[string]error{"a": errWho, "": errNoGuest, "aa111": errNoGuest, "bb33": errNoGuest, "b": errNoGuest} {
		if got, err := table.Get(id); !errors.Is(err, want) {
			t.Errorf("Get(%q) gives %v, %v, want %v", id, got, err, want)
		}
	}
	if _, err := table.Get("a"); !strings.Contains(err.Error(), "names 3") {
		t.Errorf("the error does not say how many there are: %v", err)
	}
	if !table.Has("bb33") || table.Has("bb") {
		t.Error("Has goes by whole ids, of hidden rows too")
	}
}

func TestTableListsTheOldestFirst(t *testing.T) {
	table := openTable(t, openDB(t, filepath.Join(t.TempDir(), "db")))
	at := time.Unix(1000, 0)
	save(t, table, guest{ID: "c", Arrived: at}, guest{ID: "b", Arrived: at.Add(time.Second)},
		guest{ID: "a", Arrived: at}, guest{ID: "d", Arrived: at.Add(-time.Second), Unseen: true})
	var got []string
	for _, row := range table.List() {
		got = append(got, row.ID)
	}
	if strings.Join(got, "") != "acb" || len(table.All()) != 4 {
		t.Errorf("List gives %q, All %d rows", got, len(table.All()))
	}
}

func TestTableNamesBelongToOneRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openDB(t, path)
	table := openTable(t, db)
	reserve := func(row guest) (holder guest, taken bool) {
		err := db.Update(func(tx *state.Tx) (err error) {
			holder, taken, err = table.Reserve(tx, row)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return holder, taken
	}
	first, second := guest{ID: "1", Room: "north"}, guest{ID: "2", Room: "north"}
	if _, taken := reserve(first); taken {
		t.Fatal("the first one finds the name taken")
	}
	if holder, taken := reserve(second); !taken || holder.ID != "1" || table.Has("2") {
		t.Fatalf("the second one: holder %v, taken %t", holder, taken)
	}
	remove := func(row guest) {
		if err := db.Update(func(tx *state.Tx) error { return table.Delete(tx, row) }); err != nil {
			t.Fatal(err)
		}
	}
	remove(second) // frees no name that is another's
	if _, taken := reserve(second); !taken {
		t.Error("the name was freed with a row that did not have it")
	}
	remove(first)
	if _, taken := reserve(second); taken || table.Has("1") {
		t.Error("the name was not freed with its row")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if row, err := openTable(t, openDB(t, path)).Get("2"); err != nil || row != second {
		t.Errorf("after opening again: %v, %v", row, err)
	}
}

func TestTableShowsNothingThatIsNotCommitted(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	table := openTable(t, db)
	save(t, table, guest{ID: "stays", Room: "a"})
	stop := errors.New("stop")
	err := db.Update(func(tx *state.Tx) error {
		err := errors.Join(table.Put(tx, guest{ID: "new"}), table.Delete(tx, guest{ID: "stays", Room: "a"}))
		if table.Has("new") || !table.Has("stays") {
			t.Error("an open transaction shows")
		}
		return errors.Join(err, stop)
	})
	if !errors.Is(err, stop) || table.Has("new") || !table.Has("stays") {
		t.Errorf("after a rollback: %v, rows %v", err, table.All())
	}
}

func TestTableChangesDoNotUndoEachOther(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	table := openTable(t, db)
	save(t, table, guest{ID: "x"})
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := table.Change("x", func(g *guest) { g.Visits++ }); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if row, err := table.Get("x"); err != nil || row.Visits != 20 {
		t.Errorf("20 changes give %v, %v", row, err)
	}
	if _, err := table.Change("nobody", func(*guest) {}); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a change of no row: %v", err)
	}
}

func TestNewIDIsLikeAContainers(t *testing.T) {
	a, b := state.NewID(), state.NewID()
	if len(a) != 64 || strings.Trim(a, "0123456789abcdef") != "" || a == b {
		t.Errorf("ids %s and %s", a, b)
	}
}
