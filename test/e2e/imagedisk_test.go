package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// onSmallDisk puts containerd's files on a filesystem of so many bytes.
func onSmallDisk(t *testing.T, n *nodetest.Node, size string) {
	t.Helper()
	restart := func(argv ...string) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := n.Containerd.Stop(ctx); err != nil {
			t.Error(err)
		}
		if out, err := n.World.Output(exec.Command(argv[0], argv[1:]...)); err != nil {
			t.Errorf("%q: %v: %s", argv, err, out)
		}
		if err := n.Containerd.Start(ctx); err != nil {
			t.Error(err)
		}
	}
	restart("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", n.Containerd.Root)
	t.Cleanup(func() { restart("umount", n.Containerd.Root) })
}

// TestPullOntoAFullDisk: a layer that does not fit, packed or unpacked, is ResourceExhausted, leaves nothing, and fits
// once there is room.
func TestPullOntoAFullDisk(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	onSmallDisk(t, n, "24m")
	base := labimage.Catalogue(n.Box())[labimage.Demo].Layers
	noise := make([]byte, 40<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"packed": noise, "unpacked": make([]byte, 40<<20)} {
		spec := labimage.Spec{Layers: append(base[:len(base):len(base)], labimage.Layer{labimage.Program("data/big", data)}), Cmd: []string{"sleep", "infinity"}}
		n.PushImage(t, "big/"+name+":v1", spec)
		ref := n.Registry.Ref("big/" + name + ":v1")
		t.Run(name, func(t *testing.T) {
			_, err := tryPull(t.Context(), n, ref, nil)
			wantError(t, err, codes.ResourceExhausted, ref, "the disk of containerd is full", "no space left on device")
			wantNothingStored(t, n)
			if got := imageStatus(t, n, ref); got != nil {
				t.Errorf("an image that did not fit is present: %v", got)
			}
			onNode(t, n, "mount", "-o", "remount,size=200m", n.Containerd.Root)
			pulled(t, n, ref)
			pod := n.RunPod(t)
			if got := pod.Run(t, ref).Exec(t, "stat", "-c", "%s", "/data/big"); got != fmt.Sprint(len(data)) {
				t.Errorf("the file has %s bytes, want %d", got, len(data))
			}
			pod.Remove(t)
		})
		eventually(t, "nothing stored after the image's removal", func() bool { return len(stored(t, n)) == 0 })
		onNode(t, n, "mount", "-o", "remount,size=24m", n.Containerd.Root)
	}
}
