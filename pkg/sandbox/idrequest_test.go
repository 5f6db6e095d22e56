package sandbox

import (
	"errors"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// newAllowing is a node whose default handler allows two ranges and reservations of a team. Its pool has two ranges,
// and the reservation team-a is outside of it.
func newAllowing(t *testing.T, change func(*Options)) (*node, idpool.Range) {
	t.Helper()
	n := newNode(t, func(o *Options) {
		o.IDs = map[string]IDLimits{"runc": {MaxCount: 2 * idpool.Unit, Reservations: []string{"team-*"}}, "always": {MaxCount: idpool.Unit}}
		if change != nil {
			change(o)
		}
	})
	shared := idpool.Range{Start: 1 << 24, Length: idpool.Unit}
	if err := n.db.Update(func(tx *state.Tx) error { return n.opts.Pool.Reserve(tx.Raw(PoolBucket), "team-a", shared) }); err != nil {
		t.Fatal(err)
	}
	return n, shared
}

func asking(name string, ask IDRequest) Spec {
	spec := podSpec(name)
	spec.IDs = ask
	return spec
}

func TestPodGetsTheIDsThatItAsksFor(t *testing.T) {
	n, _ := newAllowing(t, nil)
	spec := asking("wide", IDRequest{Count: 2 * idpool.Unit})
	spec.Namespaces.User.Requested = &ocispec.IDMapping{HostID: 2013265920, Length: idpool.Unit}
	rec := n.mustRun(t, spec)
	if rec.Range.Length != 2*idpool.Unit || rec.Range.Start != 1<<20 {
		t.Errorf("the pod has %s, want both ranges of the pool", rec.Range)
	}
	// The next attempt has the same, and one that asks for something else has to wait.
	spec.Metadata.Attempt = 1
	if again := n.mustRun(t, spec); *again.Range != *rec.Range {
		t.Errorf("the next attempt has %s, the first one %s", again.Range, rec.Range)
	}
	spec.Metadata.Attempt, spec.IDs = 2, IDRequest{}
	spec.Namespaces.User.Requested = nil
	if _, err := n.Run(t.Context(), spec); !errors.Is(err, idpool.ErrPodHolds) {
		t.Errorf("an attempt that asks for other ids: %v, want ErrPodHolds", err)
	}
}

func TestIDRequestIsHeldAgainstTheHandler(t *testing.T) {
	n, _ := newAllowing(t, nil)
	for name, tc := range map[string]struct {
		handler string
		ask     IDRequest
		change  func(*Spec)
		want    error
	}{
		"too many":               {"", IDRequest{Count: 3 * idpool.Unit}, nil, ErrIDsNotAllowed},
		"no reservations at all": {"always", IDRequest{Reservation: "team-a"}, nil, ErrIDsNotAllowed},
		"another's reservation":  {"", IDRequest{Reservation: "other"}, nil, ErrIDsNotAllowed},
		"a slash in it":          {"", IDRequest{Reservation: "team-a/b"}, nil, ErrIDsNotAllowed},
		"no such reservation":    {"", IDRequest{Reservation: "team-b"}, nil, ErrReservation},
		"no such handler":        {"what", IDRequest{Reservation: "team-a"}, nil, ErrUnknownHandler},
		"a handler with never":   {"never", IDRequest{Count: idpool.Unit}, nil, ErrIDsNotAllowed},
		"the host's users":       {"", IDRequest{Reservation: "team-a"}, func(s *Spec) { s.Namespaces.User = nil }, ErrIDRequest},
		"host PID": {"always", IDRequest{Count: idpool.Unit}, func(s *Spec) {
			s.Namespaces.User, s.Namespaces.PID = nil, ModeNode
		}, ErrIDRequest},
	} {
		spec := asking("pod", tc.ask)
		spec.RuntimeHandler = tc.handler
		if tc.change != nil {
			tc.change(&spec)
		}
		if _, err := n.Run(t.Context(), spec); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if got := n.table.All(); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// TestPodsShareAReservation: beside a mapping of kubelet's, which is not claimed, and over a restart.
func TestPodsShareAReservation(t *testing.T) {
	for _, reject := range []bool{false, true} {
		n, shared := newAllowing(t, func(o *Options) { o.RejectConflicts = reject })
		first := n.mustRun(t, asking("a", IDRequest{Reservation: "team-a"}))
		spec := asking("b", IDRequest{Reservation: "team-a"})
		spec.Namespaces.User.Requested = &ocispec.IDMapping{HostID: 2013265920, Length: idpool.Unit}
		second := n.mustRun(t, spec)
		if *first.Range != shared || *second.Range != shared {
			t.Fatalf("the pods have %s and %s, want %s", first.Range, second.Range, shared)
		}
		n.restart(t)
		if held, ok := n.opts.Pool.Lookup(second.ID); !ok || held.Reservation != "team-a" || len(held.Sandboxes) != 2 {
			t.Errorf("after a restart the second pod's entry is %+v", held)
		}
		if err := errors.Join(n.Remove(t.Context(), first.ID), n.Remove(t.Context(), second.ID)); err != nil {
			t.Fatal(err)
		}
		if held, ok := n.opts.Pool.Holder(shared.Start); !ok || held.State != idpool.StateReserved || len(held.Sandboxes) != 0 {
			t.Errorf("after both pods the range is %+v, want it reserved and used by none", held)
		}
	}
}
