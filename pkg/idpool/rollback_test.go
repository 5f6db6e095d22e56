package idpool

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestRollbackAtEveryFailpoint fails each call to the bucket of each request
// once: the pool must then be what it was before the transaction, in memory and
// on disk.
func TestRollbackAtEveryFailpoint(t *testing.T) {
	requests := map[string]func(n *testNode, b *fakeTx) error{
		"acquire a free range": func(n *testNode, b *fakeTx) error {
			_, err := n.Acquire(b, "new", "new", Unit)
			return err
		},
		"acquire out of quarantine": func(n *testNode, b *fakeTx) error {
			_, err := n.Acquire(b, "new", "new", 2*Unit)
			return err
		},
		"join": func(n *testNode, b *fakeTx) error {
			_, err := n.Acquire(b, "pod-0", "another", Unit)
			return err
		},
		"claim":                   func(n *testNode, b *fakeTx) error { return n.Claim(b, "new", "new", kubeletUnit(7)) },
		"claim out of quarantine": func(n *testNode, b *fakeTx) error { return n.Claim(b, "new", "new", Range{unit(2).Start, 2 * Unit}) },
		"release the last":        func(n *testNode, b *fakeTx) error { return n.Release(b, "pod-1") },
		"release one of two":      func(n *testNode, b *fakeTx) error { return n.Release(b, "pod-0") },
		"reap":                    func(n *testNode, b *fakeTx) error { _, err := n.Reap(b, 10); return err },
		"reserve":                 func(n *testNode, b *fakeTx) error { return n.Reserve(b, "new", kubeletUnit(8)) },
		"reserve a resting range": func(n *testNode, b *fakeTx) error { return n.Reserve(b, "new", unit(2)) },
		"join a reservation":      func(n *testNode, b *fakeTx) error { _, err := n.Join(b, "kept", "new"); return err },
		"unreserve":               func(n *testNode, b *fakeTx) error { return n.Unreserve(b, "kept") },
		"several": func(n *testNode, b *fakeTx) error {
			if err := n.Release(b, "pod-1"); err != nil {
				return err
			}
			if err := n.Claim(b, "new", "new", unit(1)); err != nil {
				return err
			}
			return n.Release(b, "new")
		},
	}
	for name, request := range requests {
		failures := 0
		for failAt := 1; ; failAt++ {
			n := busyNode(t)
			before, stats := fmt.Sprint(n.List()), n.Stats()
			err := n.db.updateFailing(failAt, func(b *fakeTx) error { return request(n, b) })
			if verr := n.Verify(&fakeTx{records: n.db.records}); verr != nil {
				t.Fatalf("%s, call %d: %v", name, failAt, verr)
			}
			if err == nil {
				break // it makes fewer calls than that
			}
			failures++
			if !errors.Is(err, errDisk) {
				t.Fatalf("%s, call %d: %v", name, failAt, err)
			}
			if after := fmt.Sprint(n.List()); after != before || n.Stats() != stats {
				t.Fatalf("%s, call %d left\n%s\n%+v, before\n%s\n%+v", name, failAt, after, n.Stats(), before, stats)
			}
			if err := n.db.update(func(b *fakeTx) error { return request(n, b) }); err != nil {
				t.Fatalf("%s after a failure at call %d: %v", name, failAt, err)
			}
		}
		if failures == 0 {
			t.Errorf("%s never calls the bucket", name)
		}
	}
}

// busyNode has a pool of five: two ranges in use (the first by two sandboxes),
// two that have rested, and one that is free; and a reservation.
func busyNode(t *testing.T) *testNode {
	n := newNode(t, small(5))
	for i := range 4 {
		pod := fmt.Sprint("pod-", i)
		n.mustAcquire(PodUID(pod), pod, Unit)
	}
	n.mustAcquire("pod-0", "pod-0-again", Unit)
	n.release("pod-2")
	n.release("pod-3")
	if err := n.reserve("kept", kubeletUnit(5)); err != nil {
		t.Fatal(err)
	}
	n.pass(time.Hour)
	return n
}

// TestCommitAfterError holds what the pool promises to a caller that commits a
// transaction in spite of an error: nothing is given twice.
func TestCommitAfterError(t *testing.T) {
	n := newNode(t, small(2))
	err := n.db.updateFailing(1, func(b *fakeTx) error {
		if _, err := n.Acquire(b, "a", "a", Unit); !errors.Is(err, errDisk) {
			t.Errorf("the disk failed, and Acquire says %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := n.mustAcquire("b", "b", Unit); r == unit(0) {
		t.Errorf("%s is given although a may think that it holds it", r)
	}
}
