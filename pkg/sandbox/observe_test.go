package sandbox

import (
	"errors"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// TestLeasesAndReleasesAreObserved with their pod and range, each once and when it is certain.
func TestLeasesAndReleasesAreObserved(t *testing.T) {
	var leases []Lease
	released := map[string]idpool.Range{}
	n := newNode(t, func(o *Options) {
		o.ObserveLease = func(l Lease) { leases = append(leases, l) }
		o.ObserveRelease = func(pod Metadata, r idpool.Range) { released[pod.Name] = r }
	})
	a := n.mustRun(t, podSpec("a"))
	taken := podSpec("b")
	taken.Namespaces.User.Requested = &ocispec.IDMapping{HostID: a.Range.Start, Length: a.Range.Length}
	b := n.mustRun(t, taken)
	if _, err := n.Run(t.Context(), podSpec("c")); !errors.Is(err, idpool.ErrExhausted) {
		t.Fatalf("a third pod: %v", err)
	}
	host := podSpec("d")
	host.Namespaces.User = nil
	n.mustRun(t, host)
	if len(leases) != 3 {
		t.Fatalf("%d leases were observed: %+v", len(leases), leases)
	}
	if l := leases[0]; l.Pod.Name != "a" || l.Range != *a.Range || l.Conflict != nil || l.Err != nil {
		t.Errorf("the first lease: %+v", l)
	}
	if l := leases[1]; l.Pod.Name != "b" || l.Range != *b.Range || !errors.Is(l.Conflict, idpool.ErrConflict) || l.Err != nil {
		t.Errorf("the remapped pod's lease: %+v", l)
	}
	if l := leases[2]; l.Pod.Name != "c" || !errors.Is(l.Err, idpool.ErrExhausted) {
		t.Errorf("the refused pod's lease: %+v", l)
	}
	if len(released) != 0 {
		t.Errorf("released are %v", released)
	}
	if err := errors.Join(n.Stop(t.Context(), a.ID), n.Remove(t.Context(), a.ID), n.Remove(t.Context(), a.ID)); err != nil {
		t.Fatal(err)
	}
	if len(released) != 1 || released["a"] != *a.Range {
		t.Errorf("released are %v, want %s of a", released, a.Range)
	}
}

// TestLeaseThatIsNotRecordedIsAFailure: the transaction fails after the pool gave a range.
func TestLeaseThatIsNotRecordedIsAFailure(t *testing.T) {
	var leases []Lease
	n := newNode(t, func(o *Options) { o.ObserveLease = func(l Lease) { leases = append(leases, l) } })
	disk := errors.New("disk")
	err := n.db.Update(func(tx *state.Tx) error {
		n.observe(tx, Lease{Range: idpool.Range{Start: 65536, Length: 65536}})
		if len(leases) != 0 {
			t.Errorf("before the commit %+v is observed", leases)
		}
		return disk
	})
	if !errors.Is(err, disk) || len(leases) != 1 || !errors.Is(leases[0].Err, errNotRecorded) || leases[0].Range.Length != 0 {
		t.Errorf("%v, observed %+v", err, leases)
	}
}
