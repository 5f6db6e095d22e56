package reconcile

import (
	"strings"
	"sync"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

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
