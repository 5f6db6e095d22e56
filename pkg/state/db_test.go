package state

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"
)

type animal struct {
	Name string `json:"name"`
	Legs int    `json:"legs"`
}

var errStop = errors.New("stop")

func open(t testing.TB, o Options) *DB {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "state", "state.db")
	}
	db, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func mustUpdate(t testing.TB, db *DB, fn func(*Tx) error) {
	t.Helper()
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func TestBucket(t *testing.T) {
	db := open(t, Options{})
	animals := NewBucket[animal]("animals")
	err := db.View(func(tx *Tx) error {
		if _, err := animals.Get(tx, "cat"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get before there is a bucket: %v", err)
		}
		return animals.ForEach(tx, func(key string, _ animal) error { return fmt.Errorf("found %s", key) })
	})
	if err != nil {
		t.Error(err)
	}
	mustUpdate(t, db, func(tx *Tx) error {
		return errors.Join(animals.Put(tx, "spider", animal{"Anansi", 8}), animals.Put(tx, "cat", animal{"Tom", 4}),
			animals.Put(tx, "cat", animal{"Tib", 4}), animals.Delete(tx, "dog"), NewBucket[int]("numbers").Put(tx, "cat", 9))
	})
	var seen []string
	err = db.View(func(tx *Tx) error {
		if got, err := animals.Get(tx, "cat"); err != nil || got != (animal{"Tib", 4}) {
			t.Errorf("Get = %v, %v", got, err)
		}
		if err := animals.Put(tx, "dog", animal{}); err == nil {
			t.Error("Put in a transaction that only reads")
		}
		return animals.ForEach(tx, func(key string, a animal) error {
			seen = append(seen, fmt.Sprint(key, a))
			return nil
		})
	})
	if want := []string{"cat{Tib 4}", "spider{Anansi 8}"}; err != nil || !slices.Equal(seen, want) {
		t.Errorf("ForEach: %v, %v", seen, err)
	}
	mustUpdate(t, db, func(tx *Tx) error {
		if err := animals.Put(tx, "", animal{}); err == nil {
			t.Error("Put of an empty key")
		}
		if err := animals.ForEach(tx, func(string, animal) error { return errStop }); !errors.Is(err, errStop) {
			t.Errorf("ForEach does not return its function's error: %v", err)
		}
		return animals.Delete(tx, "cat")
	})
	err = db.View(func(tx *Tx) error {
		if _, err := animals.Get(tx, "cat"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get of a deleted key: %v", err)
		}
		if _, err := NewBucket[string]("animals").Get(tx, "spider"); !errors.Is(err, ErrDamaged) {
			t.Errorf("Get as another type: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestUpdateRollsBack(t *testing.T) {
	db := open(t, Options{})
	var calls []string
	note := func(s string) func() { return func() { calls = append(calls, s) } }
	fill := func(tx *Tx) error {
		tx.OnRollback(note("undo 1"))
		tx.OnRollback(note("undo 2"))
		tx.OnCommit(note("done 1"))
		tx.OnCommit(note("done 2"))
		return tx.Raw("b").Put("k", []byte("v"))
	}
	stored := func() (value []byte) {
		if err := db.View(func(tx *Tx) (err error) { value, err = tx.Raw("b").Get("k"); return err }); err != nil {
			t.Error(err)
		}
		return value
	}

	err := db.Update(func(tx *Tx) error { return errors.Join(fill(tx), errStop) })
	if want := []string{"undo 2", "undo 1"}; !errors.Is(err, errStop) || !slices.Equal(calls, want) || stored() != nil {
		t.Errorf("an error: %v, %v, stored %q", err, calls, stored())
	}
	calls = nil
	func() {
		defer func() {
			if r := recover(); r != "panic" {
				t.Errorf("recovered %v", r)
			}
		}()
		_ = db.Update(func(tx *Tx) error { return errors.Join(fill(tx), func() error { panic("panic") }()) })
	}()
	if want := []string{"undo 2", "undo 1"}; !slices.Equal(calls, want) || stored() != nil {
		t.Errorf("a panic: %v, stored %q", calls, stored())
	}
	calls = nil
	mustUpdate(t, db, fill)
	if want := []string{"done 1", "done 2"}; !slices.Equal(calls, want) || string(stored()) != "v" {
		t.Errorf("a commit: %v, stored %q", calls, stored())
	}
}

// TestCommitFails lets the file not grow: the transaction is undone and the
// database goes on.
func TestCommitFails(t *testing.T) {
	var observed []error
	db := open(t, Options{maxSize: 64 << 10, ObserveCommit: func(d time.Duration, err error) {
		if d < 0 {
			t.Errorf("commit took %v", d)
		}
		observed = append(observed, err)
	}})
	undone := false
	err := db.Update(func(tx *Tx) error {
		tx.OnRollback(func() { undone = true })
		return tx.Raw("b").Put("big", make([]byte, 1<<20))
	})
	if err == nil || errors.Is(err, ErrInDoubt) || !undone {
		t.Fatalf("commit beyond the size: %v, undone %v", err, undone)
	}
	if len(observed) != 1 || observed[0] == nil {
		t.Errorf("observed %v", observed)
	}
	mustUpdate(t, db, func(tx *Tx) error {
		if v, err := tx.Raw("b").Get("big"); v != nil || err != nil {
			t.Errorf("the failed value is there: %d bytes, %v", len(v), err)
		}
		return tx.Raw("b").Put("small", []byte("v"))
	})
	if len(observed) != 2 || observed[1] != nil {
		t.Errorf("observed %v", observed)
	}
}

// TestCommitInDoubt reports a failure although the commit went through, as a disk
// does that fails to confirm the last write.
func TestCommitInDoubt(t *testing.T) {
	var observed error
	db := open(t, Options{ObserveCommit: func(_ time.Duration, err error) { observed = err }})
	mustUpdate(t, db, func(tx *Tx) error { return tx.Raw("b").Put("k", []byte("1")) })
	btx, err := db.bolt.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	id := btx.ID()
	if err := btx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.judge(id, errStop); !errors.Is(err, ErrInDoubt) || !errors.Is(err, errStop) {
		t.Fatalf("a commit that is visible and failed: %v", err)
	}
	called := false
	err = db.Update(func(*Tx) error { called = true; return nil })
	if !errors.Is(err, ErrInDoubt) || called {
		t.Errorf("the next transaction: %v, called %v", err, called)
	}
	if !errors.Is(observed, ErrInDoubt) {
		t.Errorf("who watches commits is told %v of it", observed)
	}
}

// TestHooksRunBeforeTheNextWriter keeps a counter in memory beside one in the
// database; each transaction finds them equal.
func TestHooksRunBeforeTheNextWriter(t *testing.T) {
	db := open(t, Options{})
	numbers := NewBucket[int]("numbers")
	cached := 0
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 20 {
				err := db.Update(func(tx *Tx) error {
					n, err := numbers.Get(tx, "n")
					if err != nil && !errors.Is(err, ErrNotFound) {
						return err
					}
					if n != cached {
						t.Errorf("database says %d, memory %d", n, cached)
					}
					cached++
					tx.OnRollback(func() { cached-- })
					if err := numbers.Put(tx, "n", n+1); err != nil || (w+i)%3 > 0 {
						return err
					}
					return errStop
				})
				if err != nil && !errors.Is(err, errStop) {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
}

func TestViewSeesOneState(t *testing.T) {
	db := open(t, Options{})
	b := NewBucket[int]("n")
	err := db.View(func(before *Tx) error {
		mustUpdate(t, db, func(tx *Tx) error { return b.Put(tx, "k", 1) })
		if _, err := b.Get(before, "k"); !errors.Is(err, ErrNotFound) {
			t.Errorf("an older reader sees %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestClosed(t *testing.T) {
	db := open(t, Options{})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	nothing := func(*Tx) error { return nil }
	if err := db.Update(nothing); !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		t.Errorf("Update: %v", err)
	}
	if err := db.View(nothing); err == nil {
		t.Error("View of a closed database")
	}
}
