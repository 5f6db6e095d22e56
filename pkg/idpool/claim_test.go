package idpool

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// kubeletUnit is the n-th range of kubelet's default extent.
func kubeletUnit(n int) Range {
	return Range{Start: DefaultKubeletExtents()[0].Start + uint32(n)*Unit, Length: Unit}
}

func TestClaimStrict(t *testing.T) {
	tests := []struct {
		name string
		r    Range
		want error
	}{
		{"kubelet's", kubeletUnit(3), nil},
		{"several units of kubelet's", Range{kubeletUnit(8).Start, 4 * Unit}, nil},
		{"the pool's own", unit(9), nil},
		{"external", Range{7 * Unit, Unit}, nil},
		{"external, above 1<<31", Range{0xFFFE0000, Unit}, nil},
		{"empty", Range{7 * Unit, 0}, ErrInvalid},
		{"too short", Range{7 * Unit, Unit - 1}, ErrInvalid},
		{"not aligned", Range{7*Unit + 1, Unit}, ErrInvalid},
		{"the host's", Range{0, Unit}, ErrForbidden},
		{"reaches into the host's", Range{Unit - 1, Unit}, ErrForbidden},
		{"systemd's", ForeignRange(), ErrForbidden},
		{"around systemd's", Range{0x7FFD0000, 3 * Unit}, ErrForbidden},
		{"kubelet's last slot", Range{0xFFFF0000, Unit}, ErrUnmappable},
		{"beyond uid_t", Range{0xFFFE0000, 4 * Unit}, ErrUnmappable},
		{"all ids", Range{0, Invalid}, ErrForbidden},
	}
	for _, tt := range tests {
		n := newNode(t, Options{})
		err := n.claim("pod", "sandbox", tt.r)
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if remap := errors.Is(tt.want, ErrForbidden) || errors.Is(tt.want, ErrUnmappable); Remappable(err) != remap {
			t.Errorf("%s: Remappable = %v", tt.name, !remap)
		}
		if a, ok := n.OfPod("pod"); ok != (tt.want == nil) || (ok && a.Range != tt.r) {
			t.Errorf("%s: pod holds %+v, %v", tt.name, a, ok)
		}
	}
}

func TestClaimPermissive(t *testing.T) {
	for name, tt := range map[string]struct {
		r    Range
		want error
	}{
		"one id":                    {Range{12345, 1}, nil},
		"not aligned":               {Range{100000, 65536}, nil},
		"the host's":                {HostRange(), nil},
		"systemd's":                 {ForeignRange(), nil},
		"all that the kernel takes": {Range{0, Invalid}, nil},
		"up to the last but one":    {Range{0xFFFF0000, Unit - 1}, nil},
		"reaches -1":                {Range{0xFFFFFFFF, 1}, ErrUnmappable},
		"the last slot":             {Range{0xFFFF0000, Unit}, ErrUnmappable},
		"empty":                     {Range{5, 0}, ErrInvalid},
	} {
		n := newNode(t, Options{Claims: ClaimsPermissive})
		if err := n.claim("pod", "sandbox", tt.r); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
			continue
		}
		if tt.want != nil {
			continue
		}
		n.reload()
		n.release("sandbox")
		n.pass(time.Hour)
		if n.reap() != 1 || len(n.List()) != 0 {
			t.Errorf("%s: does not go away: %v", name, n.List())
		}
	}
}

func TestClaimPermissiveSharesSlots(t *testing.T) {
	n := newNode(t, Options{Claims: ClaimsPermissive, Extents: small(2).Extents})
	base := unit(0).Start
	n.mustClaim("a", "a", Range{base, 10})
	n.mustClaim("b", "b", Range{base + 10, Unit}) // reaches into the second slot
	if err := n.claim("c", "c", Range{base + 9, 1}); !errors.Is(err, ErrConflict) {
		t.Errorf("overlap: %v", err)
	}
	if _, err := n.acquire("d", "d", Unit); !errors.Is(err, ErrExhausted) {
		t.Errorf("both slots are touched: %v", err)
	}
	n.release("b")
	if r := n.mustAcquire("d", "d", Unit); r != unit(1) {
		t.Errorf("got %s, want %s", r, unit(1))
	}
	n.release("a")
	if r := n.mustAcquire("e", "e", Unit); r != unit(0) {
		t.Errorf("got %s, want %s", r, unit(0))
	}
}

func TestClaimConflictNamesHolder(t *testing.T) {
	n := newNode(t, Options{})
	r := Range{kubeletUnit(10).Start, 4 * Unit}
	n.mustClaim("holder", "holder-sandbox", r)
	err := n.claim("late", "late-sandbox", kubeletUnit(12))
	var conflict *ConflictError
	if !errors.As(err, &conflict) || !errors.Is(err, ErrConflict) || !Remappable(err) || NeedsScan(err) {
		t.Fatalf("error %v, want a conflict", err)
	}
	h := conflict.Holder
	if conflict.Requested != kubeletUnit(12) || h.Range != r || h.Pod != "holder" || h.State != StateAllocated || h.Sandboxes[0] != "holder-sandbox" {
		t.Errorf("conflict %+v", conflict)
	}
	for _, part := range []string{"late", kubeletUnit(12).String(), r.String(), "holder-sandbox", "allocated"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
	// The caller's remap policy, in the same transaction.
	err = n.db.update(func(b *fakeTx) error {
		if err := n.Claim(b, "late", "late-sandbox", kubeletUnit(12)); !Remappable(err) {
			return err
		}
		_, err := n.Acquire(b, "late", "late-sandbox", Unit)
		return err
	})
	if a, ok := n.OfPod("late"); err != nil || !ok || a.Range != unit(0) {
		t.Errorf("remapped to %+v, %v", a, err)
	}
	// kubelet sends the refused mapping again for the pod's next sandbox.
	if err := n.claim("late", "late-sandbox-1", kubeletUnit(12)); !errors.Is(err, ErrPodHolds) || !Remappable(err) {
		t.Errorf("again: %v", err)
	}
	if r := n.mustAcquire("late", "late-sandbox-1", Unit); r != unit(0) {
		t.Errorf("the next sandbox got %s", r)
	}
}

func TestClaimAgainForTheNextSandbox(t *testing.T) {
	n := newNode(t, Options{})
	n.mustClaim("pod", "sandbox-0", kubeletUnit(0))
	n.mustClaim("pod", "sandbox-0", kubeletUnit(0))
	n.mustClaim("pod", "sandbox-1", kubeletUnit(0))
	n.release("sandbox-0")
	n.reload()
	if a, ok := n.Lookup("sandbox-1"); !ok || a.Range != kubeletUnit(0) || len(a.Sandboxes) != 1 {
		t.Errorf("the second sandbox uses %+v, %v", a, ok)
	}
	n.release("sandbox-1")
	// To its last pod the range is given whatever is left of it.
	n.witness[kubeletUnit(0)] = TraceLayers
	n.mustClaim("pod", "sandbox-2", kubeletUnit(0))
}

func TestClaimOutOfQuarantine(t *testing.T) {
	n := newNode(t, Options{})
	n.mustClaim("old", "old", kubeletUnit(0))
	n.release("old")
	for _, traces := range []Trace{TraceNamespace, TraceCredentials, TraceLayers, TraceUnknown} {
		n.witness[kubeletUnit(0)] = traces
		err := n.claim("new", "new", kubeletUnit(0))
		var conflict *ConflictError
		if !errors.As(err, &conflict) || conflict.Traces != traces || conflict.Holder.State != StateQuarantined {
			t.Errorf("traces %s: %v", traces, err)
		}
		if !NeedsScan(err) { // what was seen may be gone by now
			t.Errorf("traces %s: NeedsScan is false", traces)
		}
		if !strings.Contains(err.Error(), traces.String()) || !strings.Contains(err.Error(), "pod old") {
			t.Errorf("%q does not name the traces or the pod", err)
		}
	}
	delete(n.witness, kubeletUnit(0))
	n.mustClaim("new", "new", kubeletUnit(0))
	if c := n.Stats().Counters; c.ClaimedFromQuarantine != 1 || c.EarlyReleases != 1 || c.Claimed != 2 {
		t.Errorf("counters %+v", c)
	}
	n.release("new")
	n.pass(DefaultQuarantineAge)
	n.mustClaim("third", "third", kubeletUnit(0))
	if c := n.Stats().Counters; c.ClaimedFromQuarantine != 2 || c.EarlyReleases != 1 {
		t.Errorf("counters after a full rest: %+v", c)
	}
}

func TestClaimOverSeveralResting(t *testing.T) {
	n := newNode(t, Options{})
	n.mustClaim("a", "a", kubeletUnit(1))
	n.mustClaim("b", "b", Range{kubeletUnit(2).Start, 2 * Unit})
	n.release("a")
	n.release("b")
	n.witness[Range{kubeletUnit(2).Start, 2 * Unit}] = TraceCredentials
	want := Range{kubeletUnit(0).Start, 3 * Unit}
	if err := n.claim("c", "c", want); !errors.Is(err, ErrConflict) {
		t.Fatalf("over a range with traces: %v", err)
	}
	clear(n.witness)
	n.mustClaim("c", "c", want)
	n.reload()
	if list := n.List(); len(list) != 1 || list[0].Range != want {
		t.Errorf("ledger %v", list)
	}
}

// TestPermissiveClaimAgain: what conformance suites claim again and again holds ids of the host's users.
func TestPermissiveClaimAgain(t *testing.T) {
	suites := Range{1000, 100000}
	n := newNode(t, Options{Claims: ClaimsPermissive})
	n.mustClaim("a", "a", suites)
	n.mustClaim("b", "b", kubeletUnit(0))
	if err := n.claim("c", "c", suites); !errors.Is(err, ErrConflict) {
		t.Errorf("while its pod lives: %v, want ErrConflict", err)
	}
	n.release("a")
	n.release("b")
	n.witness[suites], n.witness[kubeletUnit(0)] = TraceCredentials, TraceCredentials
	n.mustClaim("c", "c", suites)
	if err := n.claim("d", "d", kubeletUnit(0)); !errors.Is(err, ErrConflict) {
		t.Errorf("a range that strict claims can make, with traces: %v, want ErrConflict", err)
	}
	n.release("c")
	n.opts.Claims = ClaimsStrict
	n.reload()
	if err := n.claim("e", "e", Range{Unit, Unit}); !errors.Is(err, ErrConflict) {
		t.Errorf("a part of it when claims are strict: %v, want ErrConflict", err)
	}
}
