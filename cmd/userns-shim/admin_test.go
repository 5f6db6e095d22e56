package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// lateWitness knows nothing of a range before it has looked, and then of the traces that are left.
type lateWitness struct {
	looks int
	left  idpool.Trace
	err   error
}

func (w *lateWitness) Look(context.Context) error {
	w.looks++
	return w.err
}

func (w *lateWitness) Traces(idpool.Range, time.Time) idpool.Trace {
	if w.looks == 0 || w.err != nil {
		return idpool.TraceUnknown
	}
	return w.left
}

// restingView is a pool in which a range rests that was just released, and of which nobody knows what is left.
func restingView(t *testing.T, w *lateWitness) (poolView, idpool.Range) {
	t.Helper()
	db, err := state.Open(state.Options{Path: databasePath(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	v := poolView{db: db, look: w.Look}
	err = db.View(func(tx *state.Tx) (err error) {
		v.pool, err = idpool.Load(tx.Raw(sandbox.PoolBucket), idpool.Options{Witness: w})
		return err
	})
	var ids idpool.Range
	if err == nil {
		err = db.Update(func(tx *state.Tx) (err error) {
			if ids, err = v.pool.Acquire(tx.Raw(sandbox.PoolBucket), "pod", "sandbox", idpool.Unit); err != nil {
				return err
			}
			return v.pool.Release(tx.Raw(sandbox.PoolBucket), "sandbox")
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return v, ids
}

// TestCommandsLookAtARangeOfWhichNobodyKnows: an operator is not told to wait for the next look, or to use force, where a look shows that
// nothing is left. What it shows to be left is refused as ever.
func TestCommandsLookAtARangeOfWhichNobodyKnows(t *testing.T) {
	for name, change := range map[string]func(poolView, idpool.Range) error{
		"reserve": func(v poolView, r idpool.Range) error {
			return v.Reserve(t.Context(), admin.Reservation{Name: "agent", Start: r.Start, Length: r.Length})
		},
		"release": func(v poolView, r idpool.Range) error {
			return v.Release(t.Context(), admin.Release{Start: r.Start, Length: r.Length})
		},
	} {
		w := &lateWitness{}
		v, ids := restingView(t, w)
		if err := change(v, ids); err != nil || w.looks != 1 {
			t.Errorf("%s: %v after %d looks, want none after one", name, err, w.looks)
		}
		w = &lateWitness{left: idpool.TraceLayers}
		v, ids = restingView(t, w)
		if err := change(v, ids); !errors.Is(err, admin.ErrConflict) || !strings.Contains(err.Error(), "layers") || w.looks != 1 {
			t.Errorf("%s with layers left: %v after %d looks, want a conflict after one", name, err, w.looks)
		}
		w = &lateWitness{err: errors.New("containerd is away")}
		v, ids = restingView(t, w)
		if err := change(v, ids); !errors.Is(err, admin.ErrConflict) || !strings.Contains(err.Error(), "containerd is away") {
			t.Errorf("%s when nobody can look: %v, want a conflict that says why", name, err)
		}
	}
}
