package mounts

import (
	"context"
	"fmt"
	"testing"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// BenchmarkMount measures one root filesystem of a pod that has its clone, mounted and unmounted.
func BenchmarkMount(b *testing.B) {
	testkit.RequireRoot(b)
	for _, way := range []Way{WayDetached, WayStaged} {
		for _, layers := range []int{5, 41} {
			for name, pod := range map[string]bool{"userns": true, "host": false} {
				b.Run(fmt.Sprintf("%v/%d/%s", way, layers, name), func(b *testing.B) {
					requireWay(b, way)
					benchmarkMount(b, newMounter(b, way), layers, pod)
				})
			}
		}
	}
}

func benchmarkMount(b *testing.B, m *Mounter, layers int, userns bool) {
	s := newSnapshots(b)
	mounts, _ := s.container(b, s.layers(b, layers), "index=off")
	var p *testPod
	if userns {
		p = newPod(b)
	}
	req := p.request(mounts, target(b))
	ctx := context.Background()
	must(b, m.Mount(ctx, req))
	must(b, m.Unmount(ctx, req.Target))
	for b.Loop() {
		must(b, m.Mount(ctx, req))
		b.StopTimer()
		must(b, m.Unmount(ctx, req.Target))
		b.StartTimer()
	}
}

// BenchmarkUnmount measures the other half.
func BenchmarkUnmount(b *testing.B) {
	testkit.RequireRoot(b)
	m, s, p := newMounter(b, WayStaged), newSnapshots(b), newPod(b)
	mounts, _ := s.container(b, s.layers(b, 41), "index=off")
	req := p.request(mounts, target(b))
	ctx := context.Background()
	for b.Loop() {
		b.StopTimer()
		must(b, m.Mount(ctx, req))
		b.StartTimer()
		must(b, m.Unmount(ctx, req.Target))
	}
}

// BenchmarkClone measures what the first root filesystem of a pod costs more: clone and idmap, and their end.
func BenchmarkClone(b *testing.B) {
	testkit.RequireRoot(b)
	for _, way := range []Way{WayDetached, WayStaged} {
		b.Run(way.String(), func(b *testing.B) {
			requireWay(b, way)
			m, dir, p := newMounter(b, way), tempDir(b), newPod(b)
			root := place{path: dir}
			for b.Loop() {
				owner, err := m.pod(p.key)
				must(b, err)
				c, err := owner.clone(context.Background(), root, p.userns)
				must(b, err)
				c.release()
				b.StopTimer()
				m.Forget(p.key)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkCheck measures the question whether a volume can be idmapped.
func BenchmarkCheck(b *testing.B) {
	testkit.RequireRoot(b)
	m, dir, p := newMounter(b, WayDetached), tempDir(b), newPod(b)
	for b.Loop() {
		must(b, check(m, p, dir, false))
	}
}
