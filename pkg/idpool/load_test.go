package idpool

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLoadRefusesContradictions(t *testing.T) {
	record := func(start, units uint32, rest string) string {
		return fmt.Sprintf(`{"range":{"start":%d,"length":%d},%s}`, start*Unit, units*Unit, rest)
	}
	const a = `"state":"allocated","pod":"a","sandboxes":["a"]`
	for name, values := range map[string][]string{
		"overlap":          {record(10, 3, a), record(12, 1, `"state":"allocated","pod":"b","sandboxes":["b"]`)},
		"overlap at rest":  {record(10, 3, a), record(11, 1, `"state":"quarantined","pod":"b"`)},
		"one sandbox":      {record(10, 1, a), record(11, 1, `"state":"allocated","pod":"b","sandboxes":["a"]`)},
		"one pod":          {record(10, 1, a), record(11, 1, `"state":"allocated","pod":"a","sandboxes":["b"]`)},
		"one name":         {record(10, 1, `"state":"reserved","name":"x"`), record(11, 1, `"state":"reserved","name":"x"`)},
		"unreadable value": {record(10, 1, a), `{"range":{"start":720896`},
	} {
		tx := &fakeTx{records: map[string][]byte{}}
		for i, value := range values {
			key := keyOf(uint32(10+i) * Unit)
			if strings.HasPrefix(value, fmt.Sprintf(`{"range":{"start":%d,`, 12*Unit)) {
				key = keyOf(12 * Unit)
			}
			tx.records[key] = []byte(value)
		}
		p, err := Load(tx, Options{})
		if !errors.Is(err, ErrCorrupt) || p != nil {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		} else if !strings.Contains(err.Error(), "range/000a0000") && !strings.Contains(err.Error(), "range/000b0000") {
			t.Errorf("%s: %q names no record", name, err)
		}
	}
	if _, err := Load(&fakeTx{records: map[string][]byte{"cursor": []byte("65536")}}, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a cursor outside: %v", err)
	}
	if _, err := Load(&fakeTx{records: map[string][]byte{"of a later version": []byte("?")}}, Options{}); err != nil {
		t.Errorf("an unknown key: %v", err)
	}
}

func TestFindings(t *testing.T) {
	n := newNode(t, Options{Claims: ClaimsPermissive})
	n.mustAcquire("fine", "fine", Unit)
	n.mustClaim("fine too", "fine too", kubeletUnit(0))
	n.mustClaim("odd", "odd", Range{100_000, 10})
	n.mustClaim("high", "high", Range{1<<31 + 5*Unit, Unit})
	if err := n.reserve("host", HostRange()); err != nil {
		t.Fatal(err)
	}
	want := []Finding{
		{FindingOutside, Range{100_000, 10}, "odd"},
		{FindingOutside, Range{1<<31 + 5*Unit, Unit}, "high"},
		{FindingSigned, Range{1<<31 + 5*Unit, Unit}, "high"},
	}
	if got := n.Findings(); !slices.Equal(got, want) {
		t.Errorf("findings %v, want %v", got, want)
	}

	// Stricter options, and extents that meet, while all of them live.
	n.opts.Claims = ClaimsStrict
	n.opts.KubeletExtents = []Range{{Unit, Invalid - Unit}}
	n.reload()
	want = []Finding{
		{FindingNotStrict, Range{100_000, 10}, "odd"},
		{FindingExtentsMeet, DefaultExtents()[0], ""},
		{FindingSigned, Range{1<<31 + 5*Unit, Unit}, "high"},
	}
	if got := n.Findings(); !slices.Equal(got, want) {
		t.Errorf("findings %v, want %v", got, want)
	}
	if a, _ := n.OfPod("high"); a.Segment != SegmentKubelet {
		t.Errorf("segment %s", a.Segment)
	}
	if s := n.Stats(); s.Kubelet.Capacity != 65533-512 || s.Pool.Capacity != 512 {
		t.Errorf("capacities %d and %d", s.Kubelet.Capacity, s.Pool.Capacity)
	}
}

func TestStatsPerSegment(t *testing.T) {
	n := newNode(t, Options{})
	if s := n.Stats(); s.Pool.Capacity != 512 || s.Kubelet.Capacity != 1534 || s.Pool.Free != 512 ||
		s.Kubelet.LargestFreeIDs != 100532224 || s.Pool.LargestFreeIDs != 33554432 || s.External != (SegmentStats{}) {
		t.Errorf("an empty pool: %+v", s)
	}
	n.mustAcquire("a", "a", 3*Unit)
	n.mustClaim("b", "b", kubeletUnit(700))
	n.mustClaim("c", "c", Range{5 * Unit, 2 * Unit})
	n.mustClaim("d", "d", Range{9 * Unit, Unit})
	n.release("d")
	n.pass(time.Second)
	s := n.Stats()
	if s.Pool.Allocated != 3 || s.Pool.Free != 509 || s.Pool.LargestFreeIDs != 509*Unit {
		t.Errorf("pool %+v", s.Pool)
	}
	if s.Kubelet.Allocated != 1 || s.Kubelet.LargestFreeIDs != 833*Unit {
		t.Errorf("kubelet %+v", s.Kubelet)
	}
	if want := (SegmentStats{Allocated: 2, Waiting: 1, OldestResting: time.Second}); s.External != want {
		t.Errorf("external %+v, want %+v", s.External, want)
	}
	if want := (Counters{Acquired: 1, Claimed: 3, Released: 1}); s.Counters != want {
		t.Errorf("counters %+v", s.Counters)
	}
	// A younger one of which traces are left: what waits for its age alone is not taken for it.
	n.mustClaim("e", "e", Range{11 * Unit, Unit})
	n.release("e")
	n.witness[Range{11 * Unit, Unit}] = TraceLayers
	n.pass(time.Hour)
	if got, want := n.Stats().External, (SegmentStats{
		Allocated: 2, Quarantined: 1, Waiting: 1, OldestResting: time.Hour + time.Second, OldestHeld: time.Hour,
	}); got != want {
		t.Errorf("external %+v, want %+v", got, want)
	}
}

// countingWitness says that something is left of every range, and counts who asks.
type countingWitness struct{ asked int }

func (w *countingWitness) Traces(Range, time.Time) Trace { w.asked++; return TraceLayers }

// TestStatsAskOnceForALargeRange: looking for its traces takes as long as it is large, and the pool is locked meanwhile.
func TestStatsAskOnceForALargeRange(t *testing.T) {
	var witness countingWitness
	db := &fakeDB{}
	p := db.load(t, Options{Witness: &witness})
	err := db.update(func(b *fakeTx) error {
		return errors.Join(p.Reserve(b, "large", Range{Start: 3e9, Length: 1e9}), p.Unreserve(b, "large"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.External.Quarantined != 15260 || witness.asked != 1 {
		t.Errorf("%d ranges are in quarantine, and the witness was asked %d times; want 15260 and 1", s.External.Quarantined, witness.asked)
	}
}

func TestHolder(t *testing.T) {
	n := newNode(t, Options{})
	r := n.mustAcquire("pod", "sandbox", 2*Unit)
	for id, want := range map[uint64]bool{
		uint64(r.Start) - 1: false, uint64(r.Start): true, uint64(r.Start) + Unit: true, r.End() - 1: true, r.End(): false, 0: false, Invalid: false,
	} {
		if a, ok := n.Holder(uint32(id)); ok != want || (ok && a.Pod != "pod") {
			t.Errorf("Holder(%d) = %+v, %v", id, a, ok)
		}
	}
}
