package e2e

import (
	"testing"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
)

// TestOneIDMapForEachPod counts the daemon's mount_setattr calls that idmap a mount.
func TestOneIDMapForEachPod(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	demo, layers40 := n.Image(t, labimage.Demo), n.Image(t, labimage.Layers40)
	// The first pod of a daemon may make the kernel be probed.
	n.RunPod(t).Run(t, demo)

	trace := traceIDMaps(t, n)
	pod := n.RunPod(t)
	for range 3 {
		pod.Run(t, demo)
	}
	if got := trace.stop(t); got != 1 {
		t.Errorf("three containers in one pod cost %d idmaps, want 1", got)
	}

	trace = traceIDMaps(t, n)
	many := n.RunPod(t)
	many.Run(t, layers40)
	if got := trace.stop(t); got != 1 {
		t.Errorf("an image of 40 layers costs %d idmaps, want 1", got)
	}

	trace = traceIDMaps(t, n)
	pod.Run(t, layers40)
	if got := trace.stop(t); got != 0 {
		t.Errorf("another image in a pod that has its idmap costs %d idmaps, want 0", got)
	}

	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.RunPod(t).Run(t, demo) // for the kernel's probes, again
	trace = traceIDMaps(t, n)
	pod.Run(t, demo)
	pod.Run(t, demo)
	if got := trace.stop(t); got != 1 {
		t.Errorf("two containers after a restart of userns-shim cost %d idmaps, want 1", got)
	}
}
