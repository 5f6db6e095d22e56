package idpool

import (
	"errors"
	"strings"
	"testing"
)

func (n *testNode) join(name, sandbox string) (r Range, err error) {
	err = n.db.update(func(b *fakeTx) error {
		r, err = n.Join(b, name, sandbox)
		return err
	})
	return r, err
}

func (n *testNode) unreserve(name string) error {
	return n.db.update(func(b *fakeTx) error { return n.Unreserve(b, name) })
}

func TestReserveKeepsOthersOut(t *testing.T) {
	n := newNode(t, small(2))
	if err := n.reserve("legacy", unit(0)); err != nil {
		t.Fatal(err)
	}
	n.reload()
	err := n.claim("pod", "sandbox", unit(0))
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), `"legacy"`) {
		t.Errorf("claim of a reserved range: %v", err)
	}
	if r := n.mustAcquire("pod", "sandbox", Unit); r != unit(1) {
		t.Errorf("acquired %s", r)
	}
	if _, err := n.acquire("other", "other", Unit); !errors.Is(err, ErrExhausted) {
		t.Errorf("then %v", err)
	}
	if s := n.Stats().Pool; s.Reserved != 1 || s.Allocated != 1 || s.Free != 0 || s.Capacity != 2 {
		t.Errorf("stats %+v", s)
	}
	if err := n.unreserve("legacy"); err != nil {
		t.Fatal(err)
	}
	if r := n.mustAcquire("other", "other", Unit); r != unit(0) {
		t.Errorf("acquired %s", r)
	}
}

func TestReserveRefuses(t *testing.T) {
	n := newNode(t, Options{})
	n.mustAcquire("pod", "sandbox", Unit)
	if err := n.reserve("kept", unit(5)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		name string
		r    Range
		want error
	}{
		"again":           {"kept", unit(5), nil},
		"odd ids":         {"podman", Range{2147483647, 100}, nil},
		"the host's":      {"host", HostRange(), nil},
		"the very last":   {"last", Range{0xFFFF0000, Unit}, nil},
		"no name":         {"", unit(6), ErrInvalid},
		"empty":           {"x", Range{5, 0}, ErrInvalid},
		"beyond uid_t":    {"x", Range{0xFFFF0000, 2 * Unit}, ErrInvalid},
		"a name twice":    {"kept", unit(6), ErrInUse},
		"a pod's":         {"x", unit(0), ErrConflict},
		"another's":       {"x", unit(5), ErrConflict},
		"around a pod's ": {"x", Range{unit(0).Start - 5, 10}, ErrConflict},
	} {
		if err := n.reserve(tt.name, tt.r); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestJoinIsTheOnlyWayToShare(t *testing.T) {
	n := newNode(t, Options{})
	if err := n.reserve("shared", unit(3)); err != nil {
		t.Fatal(err)
	}
	for _, sandbox := range []string{"a", "b", "a"} {
		if r, err := n.join("shared", sandbox); err != nil || r != unit(3) {
			t.Fatalf("%s: %v, %v", sandbox, r, err)
		}
	}
	n.reload()
	if a, _ := n.Lookup("b"); len(a.Sandboxes) != 2 || a.Reservation != "shared" || a.State != StateReserved {
		t.Errorf("Lookup = %+v", a)
	}
	if _, err := n.join("other", "c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a name that nobody reserved: %v", err)
	}
	if _, err := n.join("shared", ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("no sandbox: %v", err)
	}
	if _, err := n.acquire("pod", "a", Unit); !errors.Is(err, ErrInvalid) {
		t.Errorf("a second range for a sandbox: %v", err)
	}
	if err := n.unreserve("shared"); !errors.Is(err, ErrInUse) {
		t.Errorf("give up while in use: %v", err)
	}
	n.release("a")
	n.release("b")
	if a, ok := n.Holder(unit(3).Start); !ok || a.State != StateReserved {
		t.Errorf("after the last release: %+v, %v", a, ok)
	}
	if err := n.unreserve("shared"); err != nil {
		t.Error(err)
	}
	if err := n.unreserve("shared"); !errors.Is(err, ErrNotFound) {
		t.Errorf("give up twice: %v", err)
	}
	if err := n.reserve("host", HostRange()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.join("host", "c"); !errors.Is(err, ErrForbidden) {
		t.Errorf("the host's ids to a pod: %v", err)
	}
}

// TestGivenUpReservationRests: those who shared a range may have left processes and files, as a pod may.
func TestGivenUpReservationRests(t *testing.T) {
	n := newNode(t, small(1))
	if err := errors.Join(n.reserve("shared", unit(0)), n.reserve("host", HostRange())); err != nil {
		t.Fatal(err)
	}
	if _, err := n.join("shared", "a"); err != nil {
		t.Fatal(err)
	}
	n.release("a")
	if err := errors.Join(n.unreserve("shared"), n.unreserve("host")); err != nil {
		t.Fatal(err)
	}
	n.witness[unit(0)] = TraceCredentials
	n.reload()
	list := n.List()
	if len(list) != 1 || list[0].State != StateQuarantined || list[0].Reservation != "shared" || list[0].Pod != "" {
		t.Fatalf("ledger %+v, want the shared range in quarantine, and nothing of the host's", list)
	}
	if _, err := n.acquire("pod", "sandbox", Unit); !errors.Is(err, ErrExhausted) {
		t.Errorf("acquire with a process left: %v, want ErrExhausted", err)
	}
	err := n.claim("pod", "sandbox", unit(0))
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), `after reservation "shared" with traces: credentials`) {
		t.Errorf("claim with a process left: %v, want ErrConflict that says after what", err)
	}
	if err := n.reserve("other", unit(0)); !errors.Is(err, ErrConflict) {
		t.Errorf("another reservation: %v, want ErrConflict", err)
	}
	// What is left is the reservation's own, as that of a pod that comes back.
	if err := errors.Join(n.reserve("shared", unit(0)), n.unreserve("shared")); err != nil {
		t.Errorf("the same reservation again: %v", err)
	}
	delete(n.witness, unit(0))
	if r := n.mustAcquire("pod", "sandbox", Unit); r != unit(0) {
		t.Errorf("acquired %s", r)
	}
}

func (n *testNode) discard(r Range, force bool) error {
	return n.db.update(func(b *fakeTx) error { return n.Discard(b, r, force) })
}

func TestDiscardTakesOnlyRestingRanges(t *testing.T) {
	n := newNode(t, small(2))
	r := n.mustAcquire("pod", "sandbox", Unit)
	for force := range map[bool]bool{false: true, true: true} {
		if err := n.discard(r, force); !errors.Is(err, ErrInUse) {
			t.Errorf("of a pod's range, force %t: %v, want ErrInUse", force, err)
		}
		if err := n.discard(unit(1), force); !errors.Is(err, ErrNotFound) {
			t.Errorf("of a free range, force %t: %v, want ErrNotFound", force, err)
		}
	}
	n.release("sandbox")
	if err := n.discard(Range{r.Start, 1}, true); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a part of a range: %v, want ErrNotFound", err)
	}
	n.witness[r] = TraceCredentials
	if err := n.discard(r, false); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("of a range with traces: %v, want ErrInUse that names them", err)
	}
	if err := n.discard(r, true); err != nil {
		t.Errorf("by force: %v", err)
	}
	n.reload()
	if list := n.List(); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
}
