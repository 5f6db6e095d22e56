package idpool

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// What other allocators of host ids got wrong, one test each.

// Incus: a strict comparison never finds a single free slot between two others.
func TestRegressionSingleFreeSlotInTheMiddle(t *testing.T) {
	for gap := range 5 {
		n := newNode(t, small(5))
		for i := range 5 {
			n.mustClaim(PodUID(fmt.Sprint(i)), fmt.Sprint(i), unit(i))
		}
		n.release(fmt.Sprint(gap))
		n.pass(time.Hour)
		n.reap()
		if r, err := n.acquire("p", "s", Unit); err != nil || r != unit(gap) {
			t.Errorf("gap at %d: %v, %v", gap, r, err)
		}
	}
}

// Docker: the overlap check misses an entry that lies inside the candidate.
func TestRegressionEntryInsideTheCandidate(t *testing.T) {
	n := newNode(t, Options{Claims: ClaimsPermissive, Extents: small(4).Extents})
	inside := Range{unit(1).Start + 100, 10}
	n.mustClaim("inside", "inside", inside)
	if err := n.claim("p", "s", Range{unit(0).Start, 3 * Unit}); !errors.Is(err, ErrConflict) {
		t.Errorf("a claim around %s: %v", inside, err)
	}
	if err := n.claim("p", "s", unit(1)); !errors.Is(err, ErrConflict) {
		t.Errorf("a claim of the unit around %s: %v", inside, err)
	}
	if r, err := n.acquire("p", "s", 2*Unit); err != nil || r.Overlaps(inside) {
		t.Errorf("acquired %v, %v around %s", r, err, inside)
	}
	if r, err := n.acquire("q", "t", 2*Unit); err == nil {
		t.Errorf("acquired %v, which overlaps something", r)
	}
}

// nspawn, nsresourced: only the first and the last id of a candidate are probed.
func TestRegressionOnlyEndsProbed(t *testing.T) {
	n := newNode(t, small(9))
	n.mustClaim("middle", "middle", unit(4))
	for units := 5; units <= 9; units++ {
		if r, err := n.acquire("p", "s", uint32(units)*Unit); !errors.Is(err, ErrFragmented) && !errors.Is(err, ErrExhausted) {
			t.Errorf("%d units: %v, %v", units, r, err)
		}
		if err := n.claim("p", "s", Range{unit(0).Start, uint32(units) * Unit}); !errors.Is(err, ErrConflict) {
			t.Errorf("claim of %d units: %v", units, err)
		}
	}
	if r := n.mustAcquire("p", "s", 4*Unit); r.Overlaps(unit(4)) {
		t.Errorf("acquired %s", r)
	}
}

// nspawn: random probing gives up while 3 % are free.
func TestRegressionFillsToTheLastRange(t *testing.T) {
	n := newNode(t, Options{})
	seen := map[Range]bool{}
	for i := range 512 {
		r := n.mustAcquire(PodUID(fmt.Sprint(i)), fmt.Sprint(i), Unit)
		if seen[r] {
			t.Fatalf("%s twice", r)
		}
		seen[r] = true
	}
}

// Sysbox: once all ranges are given, they are silently given again.
func TestRegressionExhaustionIsAnError(t *testing.T) {
	n := newNode(t, small(2))
	n.mustAcquire("a", "a", Unit)
	n.mustAcquire("b", "b", Unit)
	for range 3 {
		if r, err := n.acquire("c", "c", Unit); !errors.Is(err, ErrExhausted) {
			t.Fatalf("a full pool gave %v, %v", r, err)
		}
	}
	n.release("a")
	if r := n.mustAcquire("c", "c", Unit); r != unit(0) {
		t.Errorf("after a removal: %s", r)
	}
}

// nsresourced: ranges are forgotten at reboot while files in them stay.
// CRI-O#10014: mappings are lost when the daemon restarts.
func TestRegressionRangesSurviveRestart(t *testing.T) {
	n := newNode(t, small(3))
	n.mustAcquire("running", "running", Unit)
	n.mustAcquire("gone", "gone", Unit)
	n.release("gone")
	n.witness[unit(1)] = TraceLayers
	n.pass(24 * time.Hour)
	n.reload()
	if a, ok := n.Lookup("running"); !ok || a.Range != unit(0) || a.Pod != "running" {
		t.Errorf("the running pod holds %+v, %v", a, ok)
	}
	n.mustAcquire("a", "a", Unit)
	if r, err := n.acquire("b", "b", Unit); !errors.Is(err, ErrExhausted) {
		t.Errorf("the range whose layers are left was given: %v, %v", r, err)
	}
}

// kubernetes#132966: a changed pool stops the daemon while pods live.
func TestRegressionChangedExtentsWithLivePods(t *testing.T) {
	n := newNode(t, Options{})
	old := n.mustAcquire("pod", "sandbox", Unit)
	n.mustClaim("kubelet's", "kubelet's", kubeletUnit(9))
	n.opts.Extents = []Range{{Start: 50 * Unit, Length: 2 * Unit}}
	n.opts.KubeletExtents = []Range{{Start: 60 * Unit, Length: 2 * Unit}}
	n.reload()
	if a, ok := n.OfPod("pod"); !ok || a.Range != old || a.Segment != SegmentExternal {
		t.Errorf("the pod holds %+v, %v", a, ok)
	}
	if got := n.mustAcquire("pod", "sandbox-1", Unit); got != old {
		t.Errorf("its next sandbox got %s", got)
	}
	if f := n.Findings(); len(f) != 2 || f[0].Kind != FindingOutside || f[1].Kind != FindingOutside || f[1].Pod != "pod" {
		t.Errorf("findings %v", f)
	}
	if r := n.mustAcquire("new", "new", Unit); r != (Range{50 * Unit, Unit}) {
		t.Errorf("a new pod got %s", r)
	}
	n.release("sandbox")
	n.release("sandbox-1")
	n.release("kubelet's")
	n.pass(time.Hour)
	if n.reap() != 2 || len(n.Findings()) != 0 {
		t.Errorf("left: %v", n.Findings())
	}
}

// kubernetes#139916: kubelet's last slot can never be mapped, and the pod never
// starts. kubernetes PR#141345: an oversized count wraps around to host id 0.
func TestRegressionKubeletsBadPicksAreRemappable(t *testing.T) {
	for i, r := range []Range{{0xFFFF0000, Unit}, {0, Unit}} {
		n := newNode(t, Options{})
		if err := n.claim("pod", "sandbox", r); !Remappable(err) {
			t.Errorf("pick %d: %v", i, err)
		}
		if got := n.mustAcquire("pod", "sandbox", r.Length); got != unit(0) {
			t.Errorf("pick %d: remapped to %s", i, got)
		}
	}
}
