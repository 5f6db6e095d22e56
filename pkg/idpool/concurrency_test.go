package idpool

import (
	"fmt"
	"sync"
	"testing"
)

// TestReadersBesideAWriter lets the race detector look at readers while ranges
// come, go and are taken back.
func TestReadersBesideAWriter(t *testing.T) {
	n := newNode(t, small(64))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, a := range n.List() {
					if h, ok := n.Holder(a.Range.Start); ok && !h.Range.Contains(a.Range.Start) {
						t.Errorf("id %d belongs to %v", a.Range.Start, h)
					}
				}
				if s := n.Stats().Pool; s.Free+s.Allocated != 64 {
					t.Errorf("stats %+v", s)
				}
				n.Lookup("s1")
				n.OfPod("p1")
				n.Findings()
			}
		})
	}
	for i := range 400 {
		pod := fmt.Sprint("p", i%7)
		err := n.db.update(func(b *fakeTx) error {
			if _, err := n.Acquire(b, PodUID(pod), pod, Unit); err != nil {
				return err
			}
			if i%5 == 0 {
				return errDisk
			}
			return n.Release(b, fmt.Sprint("p", (i+3)%7))
		})
		if (err != nil) != (i%5 == 0) {
			t.Errorf("transaction %d: %v", i, err)
		}
	}
	close(stop)
	readers.Wait()
}
