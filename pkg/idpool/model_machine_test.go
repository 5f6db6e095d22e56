package idpool

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"
)

// machine drives pool and model side by side.
type machine struct {
	model   model
	db      fakeDB
	pool    *Pool
	clock   *clocktesting.FakePassiveClock
	options Options
}

func newMachine(t *rapid.T) *machine {
	clock := clocktesting.NewFakePassiveClock(epoch())
	witness := fakeWitness{}
	m := &machine{clock: clock, options: Options{
		// The foreign range lies inside one extent, another is not aligned.
		Extents:        []Range{{0x7FFB0000, 8 * Unit}, {0x80100000 + 5, 4 * Unit}, {0x80200000, 2 * Unit}},
		KubeletExtents: []Range{{0x7FE00000, 6 * Unit}},
		Claims:         rapid.SampledFrom([]Claims{ClaimsStrict, ClaimsPermissive}).Draw(t, "claims"),
		QuarantineAge:  time.Minute, Witness: witness, Clock: clock,
	}}
	m.model = model{opts: m.options, witness: witness, said: map[rest]Trace{}}
	m.reload(t)
	return m
}

func (m *machine) reload(t *rapid.T) {
	var err error
	if m.pool, err = Load(&fakeTx{records: m.db.records}, m.options); err != nil {
		t.Fatal(err)
	}
	m.model.review()
}

func drawPod(t *rapid.T) PodUID {
	return PodUID(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"}).Draw(t, "pod"))
}

func drawSandbox(t *rapid.T, pod PodUID) string {
	if rapid.IntRange(0, 30).Draw(t, "foreign sandbox") == 0 {
		return "a0"
	}
	return fmt.Sprint(pod, rapid.IntRange(0, 1).Draw(t, "attempt"))
}

func drawRange(t *rapid.T) Range {
	r := slotRange(rapid.SampledFrom([]int{0x7FE0, 0x7FE2, 0x7FE5, 0x7FFA, 0x7FFB, 0x7FFC, 0x7FFD, 0x7FFE, 0x8001, 0x8010, 0x8012, 0x8020, 0x8021, 0x8022}).Draw(t, "slot"),
		rapid.SampledFrom([]int{1, 1, 1, 2, 4}).Draw(t, "units"))
	if rapid.IntRange(0, 3).Draw(t, "odd") == 0 {
		r.Start += uint32(rapid.SampledFrom([]int{1, 5, 1000, Unit - 1}).Draw(t, "shift"))
		r.Length = uint32(rapid.SampledFrom([]int{1, 10, Unit - 1, Unit, Unit + 1, 3 * Unit}).Draw(t, "length"))
	}
	return r
}

// step does one random request on pool and model and compares the answers.
func (m *machine) step(t *rapid.T, b *fakeTx) {
	// Time always moves, so that no two entries have the same age.
	m.clock.SetTime(m.clock.Now().Add(time.Duration(rapid.IntRange(1, 20_000).Draw(t, "ms")) * time.Millisecond))
	now := m.clock.Now()
	pod := drawPod(t)
	sandbox := drawSandbox(t, pod)
	switch rapid.SampledFrom([]string{
		"acquire", "acquire", "acquire", "claim", "claim", "release", "release", "release", "reap", "reservation", "reservation", "recovery", "traces",
	}).Draw(t, "request") {
	case "acquire":
		ids := uint32(rapid.SampledFrom([]int{1, 1, 1, 1, 2, 3}).Draw(t, "units")) * Unit
		got, err := m.pool.Acquire(b, pod, sandbox, ids)
		want, wantErr := m.model.acquire(pod, sandbox, ids, now)
		if got != want || !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
			t.Fatalf("acquire(%s, %s, %d) = %v, %v, want %v, %v", pod, sandbox, ids, got, err, want, wantErr)
		}
	case "claim":
		r := drawRange(t)
		err, wantErr := m.pool.Claim(b, pod, sandbox, r), m.model.claim(pod, sandbox, r, now)
		if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
			t.Fatalf("claim(%s, %s, %s) = %v, want %v", pod, sandbox, r, err, wantErr)
		}
	case "release":
		if err := m.pool.Release(b, sandbox); err != nil {
			t.Fatal(err)
		}
		m.model.release(sandbox, now)
	case "reservation":
		m.stepReservation(t, b, sandbox)
	case "recovery":
		m.stepRecovery(t, b, pod, sandbox)
	case "traces":
		m.lookAgain(t)
	case "reap":
		if _, err := m.pool.Reap(b, 1000); err != nil {
			t.Fatal(err)
		}
		m.model.reap(now, m.options.QuarantineAge)
	}
}

// lookAgain lets the witness find something else of an entry. The pool is not told.
func (m *machine) lookAgain(t *rapid.T) {
	if len(m.model.entries) == 0 {
		return // an empty ledger has no traces
	}
	a := rapid.SampledFrom(m.model.entries).Draw(t, "entry")
	m.model.witness[a.Range] = Trace(rapid.SampledFrom([]int{0, 0, 1, 4, 8, 10, 15}).Draw(t, "traces"))
}

// rests fills the pool's own extents with ranges of which nothing is left but their age.
func (m *machine) rests(t *rapid.T) {
	for slot := 0x7FD0; slot < 0x8040; slot++ {
		if !m.model.givable(slot) {
			continue
		}
		m.clock.SetTime(m.clock.Now().Add(time.Millisecond))
		id := fmt.Sprint("filler", slot)
		err := m.db.update(func(b *fakeTx) error {
			return errors.Join(m.pool.Claim(b, PodUID(id), id, slotRange(slot, 1)), m.pool.Release(b, id))
		})
		if werr := m.model.claim(PodUID(id), id, slotRange(slot, 1), m.clock.Now()); err != nil || werr != nil {
			t.Fatal(err, werr)
		}
		m.model.release(id, m.clock.Now())
	}
}

func (m *machine) transaction(t *rapid.T) {
	before := m.model.clone()
	err := m.db.update(func(b *fakeTx) error {
		for range rapid.IntRange(1, 4).Draw(t, "requests") {
			m.step(t, b)
		}
		if rapid.IntRange(0, 3).Draw(t, "fails") == 0 {
			return errDisk
		}
		return nil
	})
	if err != nil {
		m.model = before
	}
}

// check compares pool and model as a whole.
func (m *machine) check(t *rapid.T) {
	want := slices.Clone(m.model.entries)
	slices.SortFunc(want, func(a, b Allocation) int { return cmp.Compare(a.Range.Start, b.Range.Start) })
	got := m.pool.List()
	for i := range got {
		got[i].Segment = ""
	}
	for i, a := range want {
		if a.State == StateQuarantined {
			want[i].Traces = m.model.said[rest{a.Range, a.Since}]
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("ledger\n%v\nwant\n%v", got, want)
	}
	for i, a := range got {
		if i > 0 && got[i-1].Range.Overlaps(a.Range) {
			t.Fatalf("%v and %v overlap", got[i-1], a)
		}
		for _, id := range []uint64{uint64(a.Range.Start), a.Range.End() - 1} {
			if h, ok := m.pool.Holder(uint32(id)); !ok || h.Range != a.Range {
				t.Fatalf("id %d belongs to %v, want %v", id, h, a)
			}
		}
	}
	if err := m.pool.Verify(&fakeTx{records: m.db.records}); err != nil {
		t.Fatal(err)
	}
	wantSameAsWalk(t, m.pool)
}

// checkStats walks over all slots there are, so it is not done after each step.
func (m *machine) checkStats(t *rapid.T) {
	s := m.pool.Stats()
	for _, seg := range []SegmentStats{s.Pool, s.Kubelet} {
		if seg.Capacity != seg.Free+seg.Allocated+seg.Quarantined+seg.Reserved {
			t.Fatalf("stats do not add up: %+v", seg)
		}
	}
	free := 0
	for slot := 0x7FD0; slot < 0x8040; slot++ {
		if m.model.givable(slot) && m.model.waiting(m.model.overlapping(slotRange(slot, 1))) {
			free++
		}
	}
	if s.Pool.Free != free || s.Pool.Capacity != 7+3+2 || s.Kubelet.Capacity != 6 {
		t.Fatalf("stats %+v, want %d free", s.Pool, free)
	}
}

func TestPoolAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		if rapid.Bool().Draw(t, "all rest") {
			m.rests(t)
		}
		t.Repeat(map[string]func(*rapid.T){
			"":            m.check,
			"transaction": m.transaction,
			"reopen":      m.reload,
			"stats":       m.checkStats,
			"review":      func(*rapid.T) { m.pool.Review(); m.model.review() },
			"traces":      m.lookAgain,
		})
	})
}
