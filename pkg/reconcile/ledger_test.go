package reconcile

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/utils/clock"

	"github.com/userns-shim/userns-shim/pkg/idpool"
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
	asked   func() // where set, called when the records were read
}

func (f *fakeSandboxes) All() []sandbox.Record {
	records := f.records
	if f.asked != nil {
		f.asked()
	}
	return records
}

func (f *fakeSandboxes) add(id, pod string, r *idpool.Range) {
	f.records = append(f.records, sandbox.Record{ID: id, Range: r, Spec: sandbox.Spec{Metadata: sandbox.Metadata{UID: pod}}})
}

type world struct {
	*Reconciler
	sandboxes *fakeSandboxes
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
	w := &world{sandboxes: &fakeSandboxes{}}
	var pool *idpool.Pool
	if err := db.View(func(tx *state.Tx) error {
		pool, err = idpool.Load(tx.Raw(sandbox.PoolBucket), idpool.Options{
			Extents: []idpool.Range{{Start: base, Length: 16 * idpool.Unit}},
		})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.Reconciler = New(Options{DB: db, Pool: pool, Sandboxes: w.sandboxes, Clock: clock.RealClock{}})
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

func ptr(r idpool.Range) *idpool.Range { return &r }

func TestAgreementIsNoFinding(t *testing.T) {
	w := newWorld(t)
	w.give(t, "p1", "s1", slot(0))
	w.give(t, "p1", "s2", slot(0))
	w.sandboxes.add("s1", "p1", ptr(slot(0)))
	w.sandboxes.add("s2", "p1", ptr(slot(0)))
	w.sandboxes.add("host", "p2", nil)
	if found := w.once(t); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
}

func TestLedgerWithoutSandbox(t *testing.T) {
	w := newWorld(t)
	w.give(t, "p1", "s1", slot(0))
	w.give(t, "p2", "s2", slot(1))
	w.give(t, "p2", "s3", slot(1))
	w.give(t, "p3", "s4", slot(2))
	w.sandboxes.add("s3", "p2", ptr(slot(1)))
	w.sandboxes.add("s4", "p3", nil) // uses the host's ids
	found := w.once(t)
	if len(found) != 3 || found[0].Pod != "p1" || found[0].Sandbox != "s1" || found[1].Sandbox != "s2" || found[2].Sandbox != "s4" {
		t.Fatalf("found %+v", found)
	}
	for _, f := range found {
		if f.Kind != KindLedger || !f.Repaired() {
			t.Errorf("found %+v", f)
		}
	}
	w.wantHolder(t, slot(0), idpool.StateQuarantined)
	w.wantHolder(t, slot(1), idpool.StateAllocated, "s3")
	w.wantHolder(t, slot(2), idpool.StateQuarantined)
	if found := w.once(t); len(found) > 0 {
		t.Errorf("found again %+v", found)
	}
	if found, repaired := w.Counts(); found[KindLedger] != 3 || repaired[KindLedger] != 3 || w.Leaked()[idpool.SegmentPool] != 0 {
		t.Errorf("counted %v, repaired %v, leaked %v", found, repaired, w.Leaked())
	}
}

func TestSandboxWithoutLedger(t *testing.T) {
	w := newWorld(t)
	w.give(t, "old", "s0", slot(3))
	w.update(t, func(b idpool.Bucket) error { return w.opts.Pool.Release(b, "s0") })
	w.sandboxes.add("s1", "p1", ptr(slot(3))) // which rests
	w.give(t, "p2", "s2", slot(4))
	w.sandboxes.add("s2", "p2", ptr(slot(5))) // the ledger has another for it
	found := w.once(t)
	if len(found) != 3 || found[0].Kind != KindRecord || found[1].Kind != KindLedger || found[2].Kind != KindRecord {
		t.Fatalf("found %+v", found)
	}
	w.wantHolder(t, slot(3), idpool.StateAllocated, "s1")
	w.wantHolder(t, slot(4), idpool.StateQuarantined)
	w.wantHolder(t, slot(5), idpool.StateAllocated, "s2")
	if found := w.once(t); len(found) > 0 {
		t.Errorf("found again %+v", found)
	}
}

// TestConflictIsReported: two sandboxes have one range, and the ledger knows of one.
func TestConflictIsReported(t *testing.T) {
	w := newWorld(t)
	w.give(t, "p1", "s1", slot(0))
	w.sandboxes.add("s1", "p1", ptr(slot(0)))
	w.sandboxes.add("s2", "p2", ptr(slot(0)))
	for range 2 {
		found := w.once(t)
		if len(found) != 1 || found[0].Kind != KindRecord || found[0].Repaired() || found[0].Remedy == "" || !strings.Contains(found[0].Found, "p1") {
			t.Fatalf("found %+v", found)
		}
	}
	w.wantHolder(t, slot(0), idpool.StateAllocated, "s1")
	found, repaired := w.Counts()
	if found[KindRecord] != 1 || repaired[KindRecord] != 0 || w.Leaked()[idpool.SegmentPool] != 1 {
		t.Errorf("counted %v, repaired %v, leaked %v", found, repaired, w.Leaked())
	}
}

// TestOpenTransactionIsNoLeak: a pod that is being made shows in the ledger before its record does.
func TestOpenTransactionIsNoLeak(t *testing.T) {
	w := newWorld(t)
	given, compared, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		done <- w.opts.DB.Update(func(tx *state.Tx) error {
			if err := w.opts.Pool.Claim(tx.Raw(sandbox.PoolBucket), "p1", "s1", slot(0)); err != nil {
				return err
			}
			tx.OnCommit(func() { w.sandboxes.add("s1", "p1", ptr(slot(0))) })
			close(given)
			<-compared
			return nil
		})
	}()
	<-given
	w.sandboxes.asked = sync.OnceFunc(func() { close(compared) })
	if found := w.once(t); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.wantHolder(t, slot(0), idpool.StateAllocated, "s1")
}
