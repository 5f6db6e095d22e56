package idpool

import (
	"errors"
	"fmt"
	"testing"
)

// restingNode has a pool of n ranges that all rest, the first one longest, and of which nothing is left.
func restingNode(t *testing.T, n int) *testNode {
	t.Helper()
	node := newNode(t, small(n))
	for i := range n {
		node.mustClaim(PodUID(fmt.Sprint(i)), fmt.Sprint(i), unit(i))
	}
	for i := range n {
		node.pass(1)
		node.release(fmt.Sprint(i))
	}
	return node
}

// take is a request beside which nobody reviews.
func (n *testNode) take(request func(b *fakeTx) error) error { return n.db.update(request) }

// TestNothingIsTakenOnAnOldReview: the witness has found traces since the last one.
func TestNothingIsTakenOnAnOldReview(t *testing.T) {
	for name, c := range map[string]struct {
		take func(n *testNode, b *fakeTx) (Range, error)
		want Range
		err  error
	}{
		"acquire": {func(n *testNode, b *fakeTx) (Range, error) { return n.Acquire(b, "new", "new", Unit) }, unit(1), nil},
		"acquire two": {
			func(n *testNode, b *fakeTx) (Range, error) { return n.Acquire(b, "new", "new", 2*Unit) },
			Range{unit(1).Start, 2 * Unit},
			nil,
		},
		"acquire four":    {func(n *testNode, b *fakeTx) (Range, error) { return n.Acquire(b, "new", "new", 4*Unit) }, Range{}, ErrExhausted},
		"claim":           {func(n *testNode, b *fakeTx) (Range, error) { return Range{}, n.Claim(b, "new", "new", unit(0)) }, Range{}, ErrConflict},
		"reserve":         {func(n *testNode, b *fakeTx) (Range, error) { return Range{}, n.Reserve(b, "new", unit(0)) }, Range{}, ErrConflict},
		"discard":         {func(n *testNode, b *fakeTx) (Range, error) { return Range{}, n.Discard(b, unit(0), false) }, Range{}, ErrInUse},
		"discard another": {func(n *testNode, b *fakeTx) (Range, error) { return Range{}, n.Discard(b, unit(1), false) }, Range{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := restingNode(t, 4)
			n.witness[unit(0)] = TraceNamespace
			var got Range
			err := n.take(func(b *fakeTx) (err error) {
				got, err = c.take(n, b)
				return err
			})
			if got != c.want || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("got %s, %v, want %s, %v", got, err, c.want, c.err)
			}
			if c.err != nil && !errors.Is(err, ErrInUse) && !NeedsScan(err) {
				t.Errorf("%v asks for no look", err)
			}
			if h, _ := n.Holder(unit(0).Start); h.State != StateQuarantined {
				t.Errorf("the range with traces is %+v", h)
			}
			wantSameAsWalk(t, n.Pool)
		})
	}
}

func TestReapAsksAgain(t *testing.T) {
	n := restingNode(t, 3)
	n.pass(DefaultQuarantineAge)
	n.witness[unit(1)] = TraceLayers
	err := n.take(func(b *fakeTx) error {
		if freed, err := n.Reap(b, 10); freed != 2 || err != nil {
			t.Errorf("reaped %d, %v, want the two without traces", freed, err)
		}
		return nil
	})
	if list := n.List(); err != nil || len(list) != 1 || list[0].Range != unit(1) || list[0].Traces != TraceLayers {
		t.Errorf("left: %+v, %v", list, err)
	}
	wantSameAsWalk(t, n.Pool)
}

// TestWhatIsClearSinceTheLastReview is refused, with an error that asks for a look, until it is reviewed.
func TestWhatIsClearSinceTheLastReview(t *testing.T) {
	n := restingNode(t, 2)
	n.witness[unit(0)], n.witness[unit(1)] = TraceUnknown, TraceCredentials
	n.Review()
	clear(n.witness)
	acquire := func(b *fakeTx) error {
		_, err := n.Acquire(b, "new", "new", Unit)
		return err
	}
	err := n.take(acquire)
	var exhausted *ExhaustedError
	if !errors.As(err, &exhausted) || exhausted.Held != 1 || exhausted.Unknown != 1 || !NeedsScan(err) {
		t.Fatalf("before the review: %v, want one held and one unknown", err)
	}
	n.Review()
	if err := n.take(acquire); err != nil {
		t.Errorf("after it: %v", err)
	}
	wantSameAsWalk(t, n.Pool)
}

// TestReviewOfMany goes through more than fit into one batch.
func TestReviewOfMany(t *testing.T) {
	const ranges = 3*reviewBatch + 5
	n := restingNode(t, ranges)
	for _, traces := range []Trace{TraceLayers, TraceUnknown, 0, TraceNamespace | TraceLayers} {
		for i := range ranges {
			n.witness[unit(i)] = traces
		}
		n.Review()
		for _, a := range n.List() {
			if a.Traces != traces {
				t.Fatalf("%s has traces %s, want %s", a.Range, a.Traces, traces)
			}
		}
		want := ranges
		if traces == 0 {
			want = 0
		}
		if s := n.Pool.Stats().Pool; s.Quarantined != want || s.Waiting != ranges-want {
			t.Errorf("stats %+v, want %d quarantined", s, want)
		}
		wantSameAsWalk(t, n.Pool)
	}
}

// TestManyInOneSlot: permissive claims share slots, also with the ends of larger ones.
func TestManyInOneSlot(t *testing.T) {
	n := newNode(t, Options{Extents: small(4).Extents, Claims: ClaimsPermissive})
	base := unit(0).Start
	claims := []Range{{base, 1}, {base + 1, 5}, {base + 100, 2 * Unit}, {base + 2*Unit + 100, 7}, {base + 3*Unit - 1, 2}, {base + 3*Unit + 1, Unit - 1}}
	for i, r := range claims {
		n.mustClaim(PodUID(fmt.Sprint(i)), fmt.Sprint(i), r)
		wantSameAsWalk(t, n.Pool)
	}
	for _, i := range []int{1, 0, 5, 2, 3, 4} {
		n.release(fmt.Sprint(i))
		wantSameAsWalk(t, n.Pool)
		for j, r := range claims {
			if h, ok := n.Holder(uint32(r.End() - 1)); !ok || h.Range != r {
				t.Errorf("after the release of %d the last id of claim %d is of %+v", i, j, h)
			}
		}
	}
	n.witness[claims[1]] = TraceCredentials
	n.Review()
	wantSameAsWalk(t, n.Pool)
	if s := n.Pool.Stats().Pool; s.Quarantined != 1 || s.Waiting != 3 || s.Free != 3 {
		t.Errorf("stats %+v, want the slot with traces held and three waiting", s)
	}
}
