package idpool

import (
	"errors"
	"testing"
)

func TestRestore(t *testing.T) {
	db := &fakeDB{}
	p := db.load(t, Options{})
	restore := func(pod PodUID, sandbox string, r Range) error {
		return db.update(func(b *fakeTx) error { return p.Restore(b, pod, sandbox, r) })
	}
	odd := Range{Start: 1000, Length: 10} // that no policy would give
	first := DefaultExtents()[0]
	first.Length = Unit
	if err := errors.Join(restore("a", "a1", odd), restore("a", "a2", odd), restore("a", "a1", odd), restore("b", "b1", first)); err != nil {
		t.Fatal(err)
	}
	if a, ok := p.OfPod("a"); !ok || a.Range != odd || len(a.Sandboxes) != 2 {
		t.Errorf("restored %+v", a)
	}
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"another's":            {restore("c", "c1", first), ErrConflict},
		"a pod with another":   {restore("a", "a3", first), ErrPodHolds},
		"a sandbox of another": {restore("c", "a1", Range{Start: 5 * Unit, Length: Unit}), ErrInvalid},
		"empty":                {restore("c", "c1", Range{}), ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	// What rests gives way.
	if err := db.update(func(b *fakeTx) error { return p.Release(b, "b1") }); err != nil {
		t.Fatal(err)
	}
	if err := restore("c", "c1", first); err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(&fakeTx{records: db.records}); err != nil {
		t.Error(err)
	}
	if _, err := Load(&fakeTx{records: db.records}, Options{}); err != nil {
		t.Error(err)
	}
}

func TestRest(t *testing.T) {
	db := &fakeDB{}
	p := db.load(t, Options{})
	start := DefaultExtents()[0].Start
	rest := func(r Range) (n int) {
		t.Helper()
		if err := db.update(func(b *fakeTx) (err error) { n, err = p.Rest(b, UnknownPod, r); return err }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := db.update(func(b *fakeTx) error { return p.Claim(b, "a", "a1", Range{Start: start + Unit, Length: Unit}) }); err != nil {
		t.Fatal(err)
	}
	if n := rest(Range{Start: start, Length: 3 * Unit}); n != 2 {
		t.Errorf("%d units rest beside what a pod has, want 2", n)
	}
	if n := rest(Range{Start: start, Length: 3 * Unit}); n != 0 {
		t.Errorf("%d units rest again", n)
	}
	if n := rest(Range{Start: start + 8*Unit, Length: 2 * Unit}); n != 1 {
		t.Errorf("a free range rests in %d parts", n)
	}
	for id, want := range map[uint32]State{
		start: StateQuarantined, start + Unit: StateAllocated, start + 2*Unit: StateQuarantined, start + 3*Unit: "", start + 9*Unit: StateQuarantined,
	} {
		if a, _ := p.Holder(id); a.State != want {
			t.Errorf("%d is %q, want %q", id, a.State, want)
		}
	}
	if _, err := p.Rest(&fakeTx{}, "", Range{Start: start, Length: Unit}); !errors.Is(err, ErrInvalid) {
		t.Errorf("without a pod: %v", err)
	}
	if err := p.Verify(&fakeTx{records: db.records}); err != nil {
		t.Error(err)
	}
}
