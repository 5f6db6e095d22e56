package reconcile

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/utils/clock"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// base is the first id of the pool's extents in tests.
const base = 2113798144

func slot(n int) idpool.Range {
	return idpool.Range{Start: base + uint32(n)*idpool.Unit, Length: idpool.Unit}
}

// fakeSandboxes are the records that a test says.
type fakeSandboxes struct {
	records []sandbox.Record
	strays  []sandbox.Stray
	removed []string
	asked   func() // where set, called when the records were read
}

func (f *fakeSandboxes) All() []sandbox.Record {
	records := f.records
	if f.asked != nil {
		f.asked()
	}
	return records
}

func (f *fakeSandboxes) Strays(context.Context, func(uint32) bool) ([]sandbox.Stray, error) {
	return f.strays, nil
}

func (f *fakeSandboxes) RemoveStray(_ context.Context, s sandbox.Stray) error {
	f.removed = append(f.removed, s.ID)
	f.strays = slices.DeleteFunc(f.strays, func(o sandbox.Stray) bool { return o.ID == s.ID })
	return nil
}

func (f *fakeSandboxes) add(id, pod string, r *idpool.Range) {
	f.records = append(f.records, sandbox.Record{ID: id, Range: r, Spec: sandbox.Spec{Metadata: sandbox.Metadata{UID: pod}}})
}

// fakeEngine answers each call with the next of what a test says, and with the last of it from then on.
type fakeEngine struct {
	layers     []map[string]idpool.Range
	containers [][]string
	err        error // of each call, where set
}

func (f *fakeEngine) Layers(context.Context) (map[string]idpool.Range, error) {
	if f.err != nil {
		return nil, f.err
	}
	return maps.Clone(next(&f.layers)), nil
}

func (f *fakeEngine) Containers(context.Context) ([]string, error) {
	if f.err != nil {
		return nil, f.err
	}
	return slices.Clone(next(&f.containers)), nil
}

func next[T any](list *[]T) (first T) {
	if len(*list) > 0 {
		first = (*list)[0]
	}
	if len(*list) > 1 {
		*list = (*list)[1:]
	}
	return first
}

type world struct {
	*Reconciler
	sandboxes *fakeSandboxes
	engine    *fakeEngine
	look      hostids.Look
	owners    map[uint64]uint32 // of namespaces that are there still, by inode
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db, err := state.Open(state.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{sandboxes: &fakeSandboxes{}, engine: &fakeEngine{}, owners: map[uint64]uint32{}}
	var pool *idpool.Pool
	if err := db.View(func(tx *state.Tx) error {
		pool, err = idpool.Load(tx.Raw(sandbox.PoolBucket), idpool.Options{
			Extents: []idpool.Range{{Start: base, Length: 16 * idpool.Unit}},
		})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.Reconciler = New(Options{
		DB: db, Pool: pool, Sandboxes: w.sandboxes, Engine: w.engine, Clock: clock.RealClock{},
		Look: func(context.Context) (*hostids.Look, error) { return &w.look, nil },
		NamespaceOwner: func(n hostids.Namespace) (uint32, error) {
			owner, ok := w.owners[n.Inode]
			if !ok {
				return 0, errors.New("it has ended")
			}
			return owner, nil
		},
		Sync: func() error { return nil },
		Known: func(id string) bool {
			return slices.ContainsFunc(w.sandboxes.records, func(rec sandbox.Record) bool { return rec.ID == id })
		},
	})
	return w
}

func (w *world) update(t *testing.T, change func(idpool.Bucket) error) {
	t.Helper()
	if err := w.opts.DB.Update(func(tx *state.Tx) error { return change(tx.Raw(sandbox.PoolBucket)) }); err != nil {
		t.Fatal(err)
	}
}

func (w *world) give(t *testing.T, pod idpool.PodUID, id string, r idpool.Range) {
	t.Helper()
	w.update(t, func(b idpool.Bucket) error { return w.opts.Pool.Claim(b, pod, id, r) })
}

func (w *world) once(t *testing.T) []Finding {
	t.Helper()
	report, err := w.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return report.Findings
}

// wantHolder checks which state the ledger has for a range, "" for free.
func (w *world) wantHolder(t *testing.T, r idpool.Range, state idpool.State, sandboxes ...string) {
	t.Helper()
	a, _ := w.opts.Pool.Holder(r.Start)
	if a.State != state || strings.Join(a.Sandboxes, ",") != strings.Join(sandboxes, ",") {
		t.Errorf("the ledger has %s as %q of %q, want %q of %q", r, a.State, a.Sandboxes, state, sandboxes)
	}
}
