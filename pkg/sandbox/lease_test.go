package sandbox

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// fakeWitness knows nothing before its first look, and then what the test says.
type fakeWitness struct {
	looks  int
	traces idpool.Trace
	err    error
}

func (w *fakeWitness) Look(context.Context) error {
	w.looks++
	return w.err
}

func (w *fakeWitness) Traces(idpool.Range, time.Time) idpool.Trace {
	if w.looks == 0 {
		return idpool.TraceUnknown
	}
	return w.traces
}

// newWitnessed is a node with a pool of one range, which rests after a pod.
func newWitnessed(t *testing.T, w *fakeWitness, change func(*Options)) (*node, idpool.Range) {
	t.Helper()
	n := newNode(t, func(o *Options) {
		o.Look = w.Look
		if change != nil {
			change(o)
		}
	})
	err := n.db.View(func(tx *state.Tx) (err error) {
		n.opts.Pool, err = idpool.Load(tx.Raw(PoolBucket), idpool.Options{
			Extents: []idpool.Range{{Start: 1 << 20, Length: idpool.Unit}}, Witness: w,
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n.Manager, err = New(n.opts); err != nil {
		t.Fatal(err)
	}
	rec := n.mustRun(t, podSpec("first"))
	if err := errors.Join(n.Stop(t.Context(), rec.ID), n.Remove(t.Context(), rec.ID)); err != nil {
		t.Fatal(err)
	}
	return n, *rec.Range
}

func TestPodThatNeedsARestingRangeLooksAtTheNode(t *testing.T) {
	w := &fakeWitness{}
	n, r := newWitnessed(t, w, nil)
	if rec := n.mustRun(t, podSpec("second")); *rec.Range != r || w.looks != 1 {
		t.Errorf("the second pod has %s after %d looks, want %s after one", rec.Range, w.looks, r)
	}
}

func TestPodThatClaimsARestingRangeLooksAtTheNode(t *testing.T) {
	claim := func(r idpool.Range) Spec {
		spec := podSpec("second")
		spec.Namespaces.User.Requested = &ocispec.IDMapping{HostID: r.Start, Length: r.Length}
		return spec
	}
	w := &fakeWitness{}
	n, r := newWitnessed(t, w, nil)
	if rec := n.mustRun(t, claim(r)); *rec.Range != r || w.looks != 1 {
		t.Errorf("the second pod has %s after %d looks, want its %s after one", rec.Range, w.looks, r)
	}
	// Traces that a look finds are a conflict like any other.
	w = &fakeWitness{traces: idpool.TraceCredentials}
	n, r = newWitnessed(t, w, func(o *Options) { o.RejectConflicts = true })
	if _, err := n.Run(t.Context(), claim(r)); !errors.Is(err, ErrConflict) || w.looks != 1 {
		t.Errorf("with a process left: %v after %d looks, want ErrConflict after one", err, w.looks)
	}
}

func TestRangeInUseIsNotGivenAway(t *testing.T) {
	w := &fakeWitness{traces: idpool.TraceNamespace}
	n, _ := newWitnessed(t, w, nil)
	_, err := n.Run(t.Context(), podSpec("second"))
	var exhausted *idpool.ExhaustedError
	if !errors.As(err, &exhausted) || exhausted.Held != 1 || w.looks != 1 {
		t.Errorf("%v after %d looks, want ErrExhausted with one range held after one", err, w.looks)
	}
	if got := n.table.All(); len(got) != 0 {
		t.Errorf("it left %v", got)
	}
}

func TestLookThatFailsIsTheAnswer(t *testing.T) {
	w := &fakeWitness{err: errors.New("no /proc")}
	var leases []Lease
	n, _ := newWitnessed(t, w, func(o *Options) { o.ObserveLease = func(l Lease) { leases = append(leases, l) } })
	leases = nil
	if _, err := n.Run(t.Context(), podSpec("second")); !errors.Is(err, w.err) {
		t.Errorf("%v, want that of the look", err)
	}
	// The pod got no range, so metrics and alerts have to hear of it.
	if len(leases) != 1 || leases[0].Pod.Name != "second" || !errors.Is(leases[0].Err, w.err) || !errors.Is(leases[0].Err, idpool.ErrExhausted) {
		t.Errorf("observed %+v, want one failure of the second pod", leases)
	}
}

// TestTwoPodsOfOneUIDShareNoIDs: the pool knows pods by their UID, which the client makes up. Kubernetes gives each out once; a CRI client
// that runs two pods under one, as copies of one file for crictl do, must not make them share ids: only a reservation does.
func TestTwoPodsOfOneUIDShareNoIDs(t *testing.T) {
	n := newNode(t, nil)
	first := n.mustRun(t, podSpec("a"))
	for name, change := range map[string]func(*Spec){
		"another name":      func(s *Spec) { s.Metadata.Name = "b" },
		"another namespace": func(s *Spec) { s.Metadata.Namespace = "b" },
		"claimed": func(s *Spec) {
			s.Metadata.Name = "c"
			s.Namespaces.User.Requested = &ocispec.IDMapping{HostID: first.Range.Start, Length: first.Range.Length}
		},
	} {
		spec := podSpec("a")
		change(&spec)
		rec, err := n.Run(t.Context(), spec)
		if !errors.Is(err, idpool.ErrInvalid) {
			t.Errorf("%s: %v and %s, want ErrInvalid: %s has %s", name, err, rec.Range, first.ID, first.Range)
		}
	}
	next := podSpec("a")
	next.Metadata.Attempt = 1
	if rec := n.mustRun(t, next); *rec.Range != *first.Range {
		t.Errorf("the pod's next attempt has %s, want its %s", rec.Range, first.Range)
	}
}
