package e2e

import (
	"math"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestImageFsInfoIsWhatTheDiskHas, which is what kubelet's garbage collection goes by: usage and mountpoint of the
// filesystem, the size of each image, and which images containers use.
func TestImageFsInfoIsWhatTheDiskHas(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	usage := func() *runtimeapi.FilesystemUsage {
		resp, err := n.Images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.ImageFilesystems) != 1 || len(resp.ContainerFilesystems) != 1 {
			t.Fatalf("ImageFsInfo is %v, want one filesystem", resp)
		}
		return resp.ImageFilesystems[0]
	}
	empty := usage()
	if empty.UsedBytes.GetValue() > 64<<10 {
		t.Errorf("without images %d bytes are used", empty.UsedBytes.GetValue())
	}
	ref := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	c := pod.Run(t, ref)
	c.Exec(t, "dd", "if=/dev/zero", "of=/big", "bs=1048576", "count=20")
	within := func(what string, got, want uint64) {
		t.Helper()
		if math.Abs(float64(got)-float64(want)) > float64(want)/10 {
			t.Errorf("%s are %d, the disk has %d", what, got, want)
		}
	}
	// The writable layer is looked at again after some seconds.
	eventually(t, "the writable layer counted", func() bool { return usage().UsedBytes.GetValue() > 20<<20 })
	full := usage()
	bytes, inodes := nodetest.DiskUse(t, snapshotsDir(n))
	within("used bytes", full.UsedBytes.GetValue(), bytes)
	within("used inodes", full.InodesUsed.GetValue(), inodes)
	if full.Timestamp <= empty.Timestamp {
		t.Errorf("time stamps are %d and then %d", empty.Timestamp, full.Timestamp)
	}
	var there, root syscall.Statfs_t
	if err := syscall.Statfs(full.FsId.Mountpoint, &there); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Statfs(n.Containerd.Root, &root); err != nil {
		t.Fatal(err)
	}
	if there.Fsid != root.Fsid {
		t.Errorf("mountpoint %s is on another filesystem than containerd's root", full.FsId.Mountpoint)
	}

	img := imageStatus(t, n, ref)
	list, err := n.Runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Containers) != 1 || list.Containers[0].ImageId != img.Id || c.Status(t).ImageId != img.Id {
		t.Errorf("containers %v do not use image %s", list.Containers, img.Id)
	}
	if img.Size == 0 || img.Size > bytes {
		t.Errorf("the image has %d bytes, the disk %d", img.Size, bytes)
	}
	pod.Remove(t)
	removeImage(t, n, ref)
	eventually(t, "the usage gone with the image", func() bool { return usage().UsedBytes.GetValue() <= empty.UsedBytes.GetValue() })
}
