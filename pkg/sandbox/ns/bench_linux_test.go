package ns

import (
	"fmt"
	"os"
	"runtime"
	"testing"
)

// BenchmarkCreate measures a pod's four namespaces, hostname included, made and removed again,
// in a process with heaps of different sizes: the clone copies the page tables.
func BenchmarkCreate(b *testing.B) {
	for _, mib := range []int{0, 100, 500} {
		b.Run(fmt.Sprintf("heap=%dMiB", mib), func(b *testing.B) {
			heap := fill(mib << 20)
			req := newRequest(b)
			for b.Loop() {
				if _, err := Create(b.Context(), req); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				remove(b, req)
				b.StartTimer()
			}
			runtime.KeepAlive(heap)
		})
	}
}

// BenchmarkRemove measures the removal of all pins, the kernel's clean-up in the background not
// included.
func BenchmarkRemove(b *testing.B) {
	req := newRequest(b)
	for b.Loop() {
		b.StopTimer()
		if _, err := Create(b.Context(), req); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		remove(b, req)
	}
}

// BenchmarkClone measures how long the clone alone keeps its thread from the garbage collector.
func BenchmarkClone(b *testing.B) {
	for _, mib := range []int{0, 100, 500} {
		b.Run(fmt.Sprintf("heap=%dMiB", mib), func(b *testing.B) {
			heap := fill(mib << 20)
			onThrowawayThread(func() {
				for b.Loop() {
					c, err := startChild()
					if err != nil {
						b.Error(err)
						return
					}
					b.StopTimer()
					if err := c.stop(); err != nil {
						b.Error(err)
					}
					b.StartTimer()
				}
			})
			runtime.KeepAlive(heap)
		})
	}
}

// fill allocates and touches n bytes in objects that the collector has to look at.
func fill(n int) [][]*byte {
	var heap [][]*byte
	for n > 0 {
		s := make([]*byte, os.Getpagesize()/8)
		s[0] = new(byte)
		heap = append(heap, s)
		n -= os.Getpagesize()
	}
	return heap
}
