package idpool

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestAcquireGivesTheNextRange(t *testing.T) {
	n := newNode(t, Options{})
	for i := range 3 {
		pod := PodUID(fmt.Sprint("pod-", i))
		if r := n.mustAcquire(pod, string(pod), Unit); r != unit(i) {
			t.Errorf("range %d is %s, want %s", i, r, unit(i))
		}
	}
	// A range that is free again is not next: the cursor moves on, restarts
	// included.
	n.release("pod-0")
	n.pass(time.Hour)
	if got := n.reap(); got != 1 {
		t.Fatalf("reaped %d", got)
	}
	n.reload()
	if r := n.mustAcquire("pod-3", "pod-3", Unit); r != unit(3) {
		t.Errorf("after a release and a restart: %s, want %s", r, unit(3))
	}
}

func (n *testNode) reap() (freed int) {
	n.Review()
	n.t.Helper()
	err := n.db.update(func(b *fakeTx) (err error) {
		freed, err = n.Reap(b, 1000)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return freed
}

func TestAcquireWrapsAround(t *testing.T) {
	n := newNode(t, small(3))
	for i := range 3 {
		n.mustAcquire(PodUID(fmt.Sprint(i)), fmt.Sprint(i), Unit)
	}
	n.release("1")
	n.pass(time.Hour)
	n.reap()
	if r := n.mustAcquire("p", "s", Unit); r != unit(1) {
		t.Errorf("got %s, want %s", r, unit(1))
	}
}

func TestAcquireIsCountedByPod(t *testing.T) {
	n := newNode(t, Options{})
	first := n.mustAcquire("pod", "sandbox-0", Unit)
	for _, sandbox := range []string{"sandbox-0", "sandbox-1", "sandbox-1"} {
		if r := n.mustAcquire("pod", sandbox, Unit); r != first {
			t.Errorf("%s got %s, want %s", sandbox, r, first)
		}
	}
	n.reload()
	a, ok := n.Lookup("sandbox-1")
	if !ok || len(a.Sandboxes) != 2 || a.Pod != "pod" || a.Range != first {
		t.Errorf("Lookup = %+v, %v", a, ok)
	}
	n.release("sandbox-0")
	if a, ok := n.OfPod("pod"); !ok || a.State != StateAllocated {
		t.Errorf("with one of two sandboxes left: %+v, %v", a, ok)
	}
	n.release("sandbox-1")
	if a, ok := n.OfPod("pod"); ok {
		t.Errorf("with no sandbox left: %+v", a)
	}
	if a, _ := n.Holder(first.Start + 7); a.State != StateQuarantined || a.Pod != "pod" {
		t.Errorf("Holder = %+v", a)
	}
	n.release("sandbox-1")
	n.release("never seen")
}

func TestAcquireRefuses(t *testing.T) {
	n := newNode(t, small(4))
	n.mustAcquire("pod", "sandbox", Unit)
	tests := []struct {
		name    string
		pod     PodUID
		sandbox string
		ids     uint32
		want    error
	}{
		{"no ids", "a", "a", 0, ErrInvalid},
		{"a part of a unit", "a", "a", Unit - 1, ErrInvalid},
		{"a unit and a part", "a", "a", Unit + 1, ErrInvalid},
		{"no pod", "", "a", Unit, ErrInvalid},
		{"no sandbox", "a", "", Unit, ErrInvalid},
		{"another pod's sandbox", "a", "sandbox", Unit, ErrInvalid},
		{"another length", "pod", "sandbox-1", 2 * Unit, ErrPodHolds},
		{"more than there is", "a", "a", 5 * Unit, ErrExhausted},
	}
	for _, tt := range tests {
		before := fmt.Sprint(n.List())
		if r, err := n.acquire(tt.pod, tt.sandbox, tt.ids); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v, want %v", tt.name, r, err, tt.want)
		}
		if after := fmt.Sprint(n.List()); after != before {
			t.Errorf("%s changed the ledger: %s", tt.name, after)
		}
	}
}

func TestAcquireLargeRanges(t *testing.T) {
	n := newNode(t, small(512))
	for i, units := range []int{4, 1, 64, 65, 200} {
		name := fmt.Sprint(i)
		r := n.mustAcquire(PodUID(name), name, uint32(units)*Unit)
		if r.Length != uint32(units)*Unit || !r.Aligned() {
			t.Errorf("%d units: %s", units, r)
		}
	}
	if s := n.Stats().Pool; s.Allocated != 334 || s.LargestFreeIDs != (512-334)*Unit {
		t.Errorf("stats %+v", s)
	}
}

func TestAcquireSaysWhy(t *testing.T) {
	n := newNode(t, small(6))
	for i := range 6 {
		n.mustAcquire(PodUID(fmt.Sprint(i)), fmt.Sprint(i), Unit)
	}
	n.witness[unit(1)] = TraceNamespace | TraceLayers
	n.witness[unit(3)] = TraceUnknown
	for _, i := range []int{1, 2, 3, 4} {
		n.release(fmt.Sprint(i))
	}
	_, err := n.acquire("p", "s", 2*Unit)
	var exhausted *ExhaustedError
	if !errors.As(err, &exhausted) || !errors.Is(err, ErrExhausted) || !errors.Is(err, ErrFragmented) {
		t.Fatalf("error %v, want fragmentation", err)
	}
	if want := (ExhaustedError{WantIDs: 2 * Unit, FreeIDs: 2 * Unit, LargestFreeIDs: Unit, Held: 1, Unknown: 1}); *exhausted != want {
		t.Errorf("error %+v, want %+v", *exhausted, want)
	}
	if !NeedsScan(err) || Remappable(err) {
		t.Errorf("NeedsScan %v, Remappable %v", NeedsScan(err), Remappable(err))
	}
	_, err = n.acquire("p", "s", 3*Unit)
	if !errors.Is(err, ErrExhausted) || errors.Is(err, ErrFragmented) {
		t.Errorf("error %v, want no fragmentation", err)
	}
	delete(n.witness, unit(3))
	if r := n.mustAcquire("p", "s", 3*Unit); r != (Range{unit(2).Start, 3 * Unit}) {
		t.Errorf("after the scan: %s", r)
	}
	if s := n.Stats(); s.Counters.EarlyReleases != 3 {
		t.Errorf("%d early releases, want 3", s.Counters.EarlyReleases)
	}
}

func TestExtents(t *testing.T) {
	n := newNode(t, Options{
		// Two that touch, one that is alone and not aligned, one with the
		// foreign range in its middle.
		Extents: []Range{
			{Start: 20 * Unit, Length: Unit},
			{Start: 19 * Unit, Length: Unit},
			{Start: 30*Unit - 1, Length: 2 * Unit},
			{Start: 0x7FFD0000, Length: 3 * Unit},
		},
		KubeletExtents: []Range{},
	})
	var got []Range
	for i := range 5 {
		got = append(got, n.mustAcquire(PodUID(fmt.Sprint(i)), fmt.Sprint(i), Unit))
	}
	want := fmt.Sprint([]Range{{19 * Unit, Unit}, {20 * Unit, Unit}, {30 * Unit, Unit}, {0x7FFD0000, Unit}, {0x7FFF0000, Unit}})
	if fmt.Sprint(got) != want {
		t.Errorf("acquired %v, want %s", got, want)
	}
	if _, err := n.acquire("p", "s", Unit); !errors.Is(err, ErrExhausted) {
		t.Errorf("then %v", err)
	}
	for name, bad := range map[string]Options{
		"outside of uid_t":  {Extents: []Range{{Start: Invalid, Length: 2}}},
		"empty":             {Extents: []Range{{Start: Unit}}},
		"no whole range":    {Extents: []Range{{Start: Unit + 1, Length: Unit}}},
		"only the host's":   {Extents: []Range{HostRange()}},
		"only systemd's":    {Extents: []Range{ForeignRange()}},
		"only the last":     {Extents: []Range{{Start: 0xFFFF0000, Length: Unit}}},
		"kubelet's empty":   {KubeletExtents: []Range{{Start: Unit}}},
		"policy of no kind": {Claims: "lax"},
	} {
		if _, err := Load(&fakeTx{}, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

func TestExtentOfAllIDs(t *testing.T) {
	n := newNode(t, Options{Extents: []Range{{Start: 0, Length: Invalid}, {Start: 1 << 31, Length: 1 << 31}}})
	if s := n.Stats(); s.Pool.Capacity != 65533 || s.Pool.LargestFreeIDs != (65534-0x7FFE)*Unit {
		t.Errorf("stats %+v", s.Pool)
	}
}

// TestExhaustedAsksAboutRangesThatReachIntoTheExtents, which changed while a pod had one of them.
func TestExhaustedAsksAboutRangesThatReachIntoTheExtents(t *testing.T) {
	n := newNode(t, small(2))
	wide := n.mustAcquire("wide", "wide", 2*Unit)
	n.opts.Extents = []Range{{unit(1).Start, Unit}}
	n.reload()
	n.release("wide")
	n.witness[wide] = TraceUnknown
	_, err := n.acquire("pod", "sandbox", Unit)
	var exhausted *ExhaustedError
	if !errors.As(err, &exhausted) || exhausted.Unknown != 1 || !NeedsScan(err) {
		t.Fatalf("nobody has looked: %v, want an error that asks for it", err)
	}
	n.witness[wide] = TraceLayers
	if _, err := n.acquire("pod", "sandbox", Unit); !errors.As(err, &exhausted) || exhausted.Held != 1 {
		t.Errorf("with traces: %v, want one range held", err)
	}
	delete(n.witness, wide)
	if r := n.mustAcquire("pod", "sandbox", Unit); r != unit(1) {
		t.Errorf("got %s, want %s", r, unit(1))
	}
}
