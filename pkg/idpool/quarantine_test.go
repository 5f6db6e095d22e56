package idpool

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestQuarantineConditions(t *testing.T) {
	n := newNode(t, small(1))
	n.mustAcquire("old", "old", Unit)
	n.release("old")
	n.pass(24 * time.Hour)
	for _, traces := range []Trace{TraceNamespace, TraceCredentials, TraceLayers, TraceUnknown} {
		n.witness[unit(0)] = traces
		if _, err := n.acquire("new", "new", Unit); !errors.Is(err, ErrExhausted) {
			t.Errorf("traces %s: %v", traces, err)
		}
		if n.reap() != 0 {
			t.Errorf("traces %s: reaped", traces)
		}
		if s := n.Stats().Pool; s.Free != 0 || s.Quarantined != 1 || s.OldestResting != 24*time.Hour {
			t.Errorf("traces %s: stats %+v", traces, s)
		}
	}
	clear(n.witness)
	if s := n.Stats().Pool; s.Free != 1 || s.Waiting != 1 || s.Quarantined != 0 || s.LargestFreeIDs != Unit {
		t.Errorf("stats %+v", s)
	}
	n.mustAcquire("new", "new", Unit)
	if c := n.Stats().Counters; c.EarlyReleases != 0 {
		t.Errorf("counters %+v", c)
	}
}

func TestQuarantineAgeIsWaivedUnderPressureOnly(t *testing.T) {
	n := newNode(t, small(3))
	for i := range 3 {
		n.mustAcquire(PodUID(fmt.Sprint(i)), fmt.Sprint(i), Unit)
	}
	for _, i := range []int{1, 0} {
		n.pass(time.Second)
		n.release(fmt.Sprint(i))
	}
	if n.reap() != 0 {
		t.Error("reaped before the age has passed")
	}
	if s := n.Stats().Pool; s.Free != 2 || s.Waiting != 2 || s.Allocated != 1 {
		t.Errorf("stats %+v", s)
	}
	// Nothing else is free: the one that rested longest goes first.
	if r := n.mustAcquire("a", "a", Unit); r != unit(1) {
		t.Errorf("got %s, want %s", r, unit(1))
	}
	if c := n.Stats().Counters; c.EarlyReleases != 1 {
		t.Errorf("counters %+v", c)
	}
	n.pass(DefaultQuarantineAge)
	n.mustAcquire("b", "b", Unit)
	if c := n.Stats().Counters; c.EarlyReleases != 1 {
		t.Errorf("counters after a full rest %+v", c)
	}
	if _, err := n.acquire("c", "c", Unit); !errors.Is(err, ErrExhausted) {
		t.Errorf("a full pool gave %v", err)
	}
}

func TestReap(t *testing.T) {
	n := newNode(t, Options{})
	for i := range 4 {
		n.mustAcquire(PodUID(fmt.Sprint("a", i)), fmt.Sprint("a", i), Unit)
		n.mustClaim(PodUID(fmt.Sprint("c", i)), fmt.Sprint("c", i), kubeletUnit(i))
	}
	for i := range 3 {
		n.release(fmt.Sprint("a", i))
		n.release(fmt.Sprint("c", i))
	}
	n.witness[unit(1)] = TraceLayers
	n.pass(DefaultQuarantineAge - 1)
	if got := n.reap(); got != 0 {
		t.Errorf("reaped %d too early", got)
	}
	n.pass(1)
	err := n.db.update(func(b *fakeTx) error {
		if got, err := n.Reap(b, 4); got != 4 || err != nil {
			t.Errorf("Reap up to 4 = %d, %v", got, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := n.reap(); got != 1 {
		t.Errorf("then reaped %d, want 1", got)
	}
	n.reload()
	if list := n.List(); len(list) != 3 {
		t.Errorf("left: %v", list)
	}
}

func TestQuarantineSurvivesClockSetBack(t *testing.T) {
	n := newNode(t, small(1))
	n.mustAcquire("a", "a", Unit)
	n.release("a")
	n.pass(-time.Hour)
	n.reload()
	if s := n.Stats().Pool; s.OldestResting != 0 {
		t.Errorf("age %s", s.OldestResting)
	}
	n.pass(DefaultQuarantineAge)
	if n.reap() != 1 {
		t.Error("does not end its rest after the age")
	}
}

func TestNoWitnessTrustsRelease(t *testing.T) {
	n := newNode(t, small(1))
	n.opts.Witness = nil
	n.reload()
	n.mustAcquire("a", "a", Unit)
	n.release("a")
	if r := n.mustAcquire("b", "b", Unit); r != unit(0) {
		t.Errorf("got %s", r)
	}
}

// TestQuarantineSurvivesClockSetBackAfterALoad: a range that rested when the daemon started goes by the monotonic clock from then
// on, as one that is released while it runs. By the wall clock alone no look would begin after its release until a
// clock that was stepped back an hour has come there again, and the range would be kept from pods for as long.
func TestQuarantineSurvivesClockSetBackAfterALoad(t *testing.T) {
	n := newNode(t, small(2))
	n.opts.Clock = nil // the real one; fakes have no monotonic reading
	n.reload()
	n.mustAcquire("a", "a", Unit)
	n.release("a")
	since := n.List()[0].Since
	n.reload()
	loaded := n.List()[0].Since
	if !strings.Contains(loaded.String(), " m=") {
		t.Errorf("the time that was loaded, %s, has no monotonic reading", loaded)
	}
	if !loaded.Round(0).Equal(since.Round(0)) {
		t.Errorf("loaded %s, want %s", loaded, since)
	}
}
