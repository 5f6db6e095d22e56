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

// model is the ledger as a plain list of intervals, with every rule written down
// the slow way.
type model struct {
	opts    Options
	entries []Allocation
	cursor  int
	witness fakeWitness
	// said is what the witness said of a range when it was last asked. It is no part of the ledger: what fails takes none of it back.
	said map[rest]Trace
}

// rest is one stay of a range in quarantine.
type rest struct {
	r     Range
	since time.Time
}

func (m *model) clone() model {
	c := *m
	c.entries = slices.Clone(m.entries)
	return c
}

func (m *model) find(match func(Allocation) bool) int { return slices.IndexFunc(m.entries, match) }

func (m *model) ofPod(pod PodUID) int {
	return m.find(func(a Allocation) bool { return a.State == StateAllocated && a.Pod == pod })
}

func (m *model) ofSandbox(id string) int {
	return m.find(func(a Allocation) bool { return slices.Contains(a.Sandboxes, id) })
}

func (m *model) overlapping(r Range) []Allocation {
	var found []Allocation
	for _, a := range m.entries {
		if uint64(a.Range.Start) < r.End() && uint64(r.Start) < a.Range.End() {
			found = append(found, a)
		}
	}
	return found
}

func (m *model) drop(gone []Allocation) {
	m.entries = slices.DeleteFunc(m.entries, func(a Allocation) bool {
		return slices.ContainsFunc(gone, func(g Allocation) bool { return g.Range == a.Range })
	})
}

func (m *model) join(i int, sandbox string) {
	if !slices.Contains(m.entries[i].Sandboxes, sandbox) {
		m.entries[i].Sandboxes = append(slices.Clone(m.entries[i].Sandboxes), sandbox)
	}
}

// ask asks the witness about an entry at rest.
func (m *model) ask(a Allocation) Trace {
	m.said[rest{a.Range, a.Since}] = m.witness[a.Range]
	return m.witness[a.Range]
}

// review asks it about all.
func (m *model) review() {
	for _, a := range m.entries {
		if a.State == StateQuarantined {
			m.ask(a)
		}
	}
}

// waiting says whether all of the entries may be dropped, by what the witness said last.
func (m *model) waiting(entries []Allocation) bool {
	return !slices.ContainsFunc(entries, func(a Allocation) bool {
		return a.State != StateQuarantined || m.said[rest{a.Range, a.Since}] != 0
	})
}

// makeWay says whether all entries over r may be dropped, by what the witness says now.
func (m *model) makeWay(r Range, waived func(Allocation) bool) bool {
	inTheWay := m.overlapping(r)
	slices.SortFunc(inTheWay, func(a, b Allocation) int { return cmp.Compare(a.Range.Start, b.Range.Start) })
	for _, a := range inTheWay {
		if a.State != StateQuarantined || (!waived(a) && m.ask(a) != 0) {
			return false
		}
	}
	return true
}

// givable says whether Acquire may give slot if nothing stood in the way.
func (m *model) givable(slot int) bool {
	r := Range{Start: uint32(slot) * Unit, Length: Unit}
	if slot == 0 || slot == 0x7FFE || slot == 0xFFFF {
		return false
	}
	return slices.ContainsFunc(m.opts.Extents, func(e Range) bool {
		return uint64(e.Start) <= uint64(r.Start) && r.End() <= e.End()
	})
}

// search returns the first slot from the cursor on, and then from 0 on, at which
// n slots in a row are givable and ok.
func (m *model) search(n int, ok func(slot int) bool) int {
	const low, high = 0x7FD0, 0x8040 // around all extents of the test
	for _, from := range []int{max(m.cursor, low), low} {
	next:
		for slot := from; slot+n <= high; slot++ {
			for s := slot; s < slot+n; s++ {
				if !m.givable(s) || !ok(s) {
					continue next
				}
			}
			return slot
		}
	}
	return -1
}

func (m *model) acquire(pod PodUID, sandbox string, ids uint32, now time.Time) (Range, error) {
	held, used := m.ofPod(pod), m.ofSandbox(sandbox)
	switch {
	case used >= 0 && used != held:
		return Range{}, ErrInvalid
	case held >= 0 && m.entries[held].Range.Length != ids:
		return Range{}, ErrPodHolds
	case held >= 0:
		m.join(held, sandbox)
		return m.entries[held].Range, nil
	}
	n := int(ids / Unit)
	free := func(slot int) bool { return len(m.overlapping(slotRange(slot, 1))) == 0 }
	slot := m.search(n, free)
	for clear := slot >= 0; !clear; {
		if slot = m.reclaimable(n); slot < 0 {
			break
		}
		clear = true
		for _, a := range m.overlapping(slotRange(slot, n)) {
			clear = m.ask(a) == 0 && clear
		}
	}
	if slot < 0 {
		return Range{}, ErrExhausted
	}
	r := slotRange(slot, n)
	m.drop(m.overlapping(r))
	m.entries = append(m.entries, Allocation{Range: r, State: StateAllocated, Pod: pod, Sandboxes: []string{sandbox}, Since: now})
	m.cursor = slot + n
	return r, nil
}

func (m *model) reclaimable(n int) int {
	if n == 1 {
		if slot := m.longestRested(); slot >= 0 {
			return slot
		}
	}
	return m.search(n, func(slot int) bool { return m.waiting(m.overlapping(slotRange(slot, 1))) })
}

// longestRested returns the first slot that can be given of the pool's own entry that waits for its age longest.
func (m *model) longestRested() int {
	byAge := slices.Clone(m.entries)
	slices.SortFunc(byAge, func(a, b Allocation) int { return a.Since.Compare(b.Since) })
	for _, a := range byAge {
		own := slices.ContainsFunc(m.opts.Extents, func(e Range) bool {
			return e.Start <= a.Range.Start && a.Range.End() <= e.End()
		})
		if !own || !m.waiting([]Allocation{a}) {
			continue
		}
		for slot := int(a.Range.Start / Unit); uint64(slot)*Unit < a.Range.End(); slot++ {
			if m.givable(slot) && a.Range.ContainsRange(slotRange(slot, 1)) {
				return slot
			}
		}
	}
	return -1
}

func (m *model) claimable(r Range) error {
	strict := m.opts.Claims != ClaimsPermissive
	switch {
	case strict && r.Overlaps(Range{0x7FFE0000, Unit}):
		return ErrForbidden
	case strict && (r.Start%Unit != 0 || r.Length%Unit != 0):
		return ErrInvalid
	}
	return nil
}

// loose says whether a quarantined entry does not bind permissive claims.
func (m *model) loose(a Allocation) bool {
	strict := model{}
	return a.State == StateQuarantined && m.opts.Claims == ClaimsPermissive && strict.claimable(a.Range) != nil
}

func (m *model) claim(pod PodUID, sandbox string, r Range, now time.Time) error {
	if err := m.claimable(r); err != nil {
		return err
	}
	held, used := m.ofPod(pod), m.ofSandbox(sandbox)
	switch {
	case used >= 0 && used != held:
		return ErrInvalid
	case held >= 0 && m.entries[held].Range != r:
		return ErrPodHolds
	case held >= 0:
		m.join(held, sandbox)
		return nil
	}
	if !m.makeWay(r, func(a Allocation) bool { return a.Pod == pod && a.Range == r || m.loose(a) }) {
		return ErrConflict
	}
	m.drop(m.overlapping(r))
	m.entries = append(m.entries, Allocation{Range: r, State: StateAllocated, Pod: pod, Sandboxes: []string{sandbox}, Since: now})
	return nil
}

func (m *model) release(sandbox string, now time.Time) {
	i := m.ofSandbox(sandbox)
	if i < 0 {
		return
	}
	a := &m.entries[i]
	a.Sandboxes = slices.DeleteFunc(slices.Clone(a.Sandboxes), func(s string) bool { return s == sandbox })
	if len(a.Sandboxes) == 0 && a.State == StateAllocated {
		a.Sandboxes, a.State, a.Since = nil, StateQuarantined, now
		m.ask(*a)
	}
}

func (m *model) reap(now time.Time, age time.Duration) {
	m.entries = slices.DeleteFunc(m.entries, func(a Allocation) bool {
		return m.waiting([]Allocation{a}) && now.Sub(a.Since) >= age && m.ask(a) == 0
	})
}

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
	switch rapid.SampledFrom([]string{"acquire", "acquire", "acquire", "claim", "claim", "release", "release", "release", "reap", "reservation", "reservation"}).Draw(t, "request") {
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
	case "reap":
		if _, err := m.pool.Reap(b, 1000); err != nil {
			t.Fatal(err)
		}
		m.model.reap(now, m.options.QuarantineAge)
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
		t.Repeat(map[string]func(*rapid.T){
			"":            m.check,
			"transaction": m.transaction,
			"reopen":      m.reload,
			"stats":       m.checkStats,
			"review":      func(*rapid.T) { m.pool.Review(); m.model.review() },
			"traces": func(t *rapid.T) {
				if len(m.model.entries) == 0 {
					t.Skip("an empty ledger has no traces")
				}
				a := rapid.SampledFrom(m.model.entries).Draw(t, "entry")
				m.model.witness[a.Range] = Trace(rapid.IntRange(0, 15).Draw(t, "traces"))
				if m.model.witness[a.Range] == 0 {
					delete(m.model.witness, a.Range)
				}
			},
		})
	})
}
