package reconcile

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// one returns the only finding, which has to be of the kind.
func (w *world) one(t *testing.T, kind Kind) Finding {
	t.Helper()
	found := w.once(t)
	if len(found) != 1 || found[0].Kind != kind {
		t.Fatalf("found %+v, want one of the kind %s", found, kind)
	}
	return found[0]
}

func (w *world) wantNothing(t *testing.T) {
	t.Helper()
	if found := w.once(t); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
}

func TestPinWithoutSandbox(t *testing.T) {
	w := newWorld(t)
	w.sandboxes.strays = []sandbox.Stray{{ID: "s1", Pins: []string{"/ns/user"}, IDs: slot(3)}}
	f := w.one(t, KindPin)
	if !f.Repaired() || f.Sandbox != "s1" || f.Range != slot(3) || !strings.Contains(f.Found, "/ns/user") || !slices.Equal(w.sandboxes.removed, []string{"s1"}) {
		t.Errorf("found %+v, removed %v", f, w.sandboxes.removed)
	}
	w.wantHolder(t, slot(3), idpool.StateQuarantined) // nobody knows what its ids are still in
	w.wantNothing(t)
}

// TestPinWithProcessesIsLeft: the pod may be one whose record can be made again.
func TestPinWithProcessesIsLeft(t *testing.T) {
	w := newWorld(t)
	w.sandboxes.strays = []sandbox.Stray{{ID: "s1", Pins: []string{"/ns/user"}, IDs: slot(3), Process: 4711}}
	for range 2 {
		f := w.one(t, KindPin)
		if f.Repaired() || !strings.Contains(f.Found, "process 4711") || !strings.Contains(f.Remedy, "pool rebuild") || w.Leaked()[idpool.SegmentPool] != 1 {
			t.Errorf("found %+v, leaked %v", f, w.Leaked())
		}
	}
	w.wantHolder(t, slot(3), idpool.StateQuarantined)
	w.sandboxes.strays[0].Process = 0
	if f := w.one(t, KindPin); !f.Repaired() || w.Leaked()[idpool.SegmentPool] != 0 {
		t.Errorf("after the end of the process: %+v, leaked %v", f, w.Leaked())
	}
}

func TestProcessWithoutSandbox(t *testing.T) {
	w := newWorld(t)
	ns := func(inode uint64, ids ...idpool.Range) hostids.Namespace {
		return hostids.Namespace{Inode: inode, UIDs: ids, GIDs: ids, Process: hostids.Process{PID: int(inode), Command: "sh"}}
	}
	w.give(t, "p1", "s1", slot(1))
	w.sandboxes.add("s1", "p1", ptr(slot(1)))
	beyond := idpool.Range{Start: 64 * idpool.Unit, Length: idpool.Unit}
	w.look.Namespaces = []hostids.Namespace{
		ns(1, slot(1)),          // a pod's
		ns(2, slot(2)),          // not a pod's any more
		ns(3, slot(3)),          // another program's: it is the host's root who made it
		ns(4, slot(4)),          // of a process that has ended meanwhile
		ns(5, beyond),           // beyond what the ledger is for
		ns(6, slot(5), slot(7)), // not as userns-shim makes them
	}
	w.owners = map[uint64]uint32{1: slot(1).Start, 2: slot(2).Start, 3: 0, 5: beyond.Start, 6: slot(5).Start}
	f := w.one(t, KindProcess)
	if f.Range != slot(2) || !f.Repaired() || !strings.Contains(f.Found, "process 2 (sh)") {
		t.Errorf("found %+v", f)
	}
	w.wantHolder(t, slot(2), idpool.StateQuarantined)
	w.wantHolder(t, slot(3), "")
	w.wantNothing(t)
}

func TestLayerWithoutSandbox(t *testing.T) {
	w := newWorld(t)
	w.give(t, "p1", "s1", slot(1))
	w.sandboxes.add("s1", "p1", ptr(slot(1)))
	all := map[string]idpool.Range{"known": slot(1), "left": slot(2), "going": slot(3)}
	w.engine.layers = []map[string]idpool.Range{all, {"known": slot(1), "left": slot(2)}}
	if f := w.one(t, KindLayer); f.Range != slot(2) || !f.Repaired() || !strings.Contains(f.Found, "left") {
		t.Errorf("found %+v", f)
	}
	w.wantHolder(t, slot(2), idpool.StateQuarantined)
	w.wantHolder(t, slot(3), "")
	w.wantNothing(t)
}

func TestContainerWithoutRecord(t *testing.T) {
	w := newWorld(t)
	w.sandboxes.add("s1", "p1", nil)
	w.engine.containers = [][]string{{"s1", "left", "going"}, {"s1", "left", "new"}}
	if f := w.one(t, KindContainer); f.Repaired() || !strings.Contains(f.Found, "left") || f.Remedy == "" {
		t.Errorf("found %+v", f)
	}
}

// TestLeakOutlivesALookThatFails: while containerd does not answer, what it had is not gone. The metrics go on telling of it, it is not
// counted again afterwards, and the report says that a part of it is old.
func TestLeakOutlivesALookThatFails(t *testing.T) {
	w := newWorld(t)
	w.sandboxes.strays = []sandbox.Stray{{ID: "s1", Pins: []string{"/ns/user"}, IDs: slot(3), Process: 4711}}
	w.engine.containers = [][]string{{"left"}}
	first := w.once(t)
	if len(first) != 2 {
		t.Fatalf("found %+v, want a pin and a container", first)
	}
	w.engine.err = errors.New("containerd is away")
	for range 2 {
		report, err := w.Once(t.Context())
		if !errors.Is(err, w.engine.err) || !errors.Is(w.Findings().Err, w.engine.err) {
			t.Errorf("%v, kept %v, want that of the engine", err, w.Findings().Err)
		}
		if len(report.Findings) != 2 || len(w.Findings().Findings) != 2 {
			t.Errorf("found %+v, want what was found before", report.Findings)
		}
	}
	w.engine.err = nil
	same := func(a, b Finding) bool { return a.key() == b.key() && a.Since.Equal(b.Since) }
	if again := w.once(t); !slices.EqualFunc(again, first, same) || w.Findings().Err != nil {
		t.Errorf("found %+v and %v, want %+v as before", again, w.Findings().Err, first)
	}
	if found, _ := w.Counts(); found[KindContainer] != 1 || found[KindPin] != 1 {
		t.Errorf("counted %v, want each leak once", found)
	}
	w.engine.containers = [][]string{{}}
	if left := w.once(t); len(left) != 1 || left[0].Kind != KindPin {
		t.Errorf("after the end of the container %+v", left)
	}
}
