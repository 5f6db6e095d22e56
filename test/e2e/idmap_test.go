package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

func TestUIDMapAndGIDMapAreExactlyTheRange(t *testing.T) {
	n := sharedNode(t)
	t.Run("acquired from the pool", func(t *testing.T) {
		pod := n.RunPod(t)
		wantMaps(t, n, pod)
		if start := pod.Range(t); !n.Pool().Contains(start) || start%65536 != 0 {
			t.Errorf("range starts at %d, want a multiple of 65536 in the pool's %+v", start, n.Pool())
		}
	})
	t.Run("claimed by kubelet", func(t *testing.T) {
		want := n.Kubelet().Start + 3*65536
		pod := n.RunPod(t, nodetest.Mapping(want))
		wantMaps(t, n, pod)
		if start := pod.Range(t); start != want {
			t.Errorf("range starts at %d, want the %d that was asked for", start, want)
		}
	})
}

func wantMaps(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
	t.Helper()
	c := pod.Run(t, n.Image(t, labimage.Demo))
	want := fmt.Sprintf("0 %d 65536", pod.Range(t))
	for _, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		if got := fields(c.Exec(t, "cat", file)); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
}

func TestPodWithoutUserNamespaceHasTheHosts(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t, nodetest.HostUsers)
	c := pod.Run(t, n.Image(t, labimage.Demo))
	if got := fields(c.Exec(t, "cat", "/proc/self/uid_map")); got != "0 0 4294967295" {
		t.Errorf("uid_map is %q, want the host's", got)
	}
	c.Exec(t, "touch", "/made")
	if got := ownerOf(t, c.HostPath(t, "/made")); got != (owner{}) {
		t.Errorf("a file made inside belongs to %+v on the host, want 0:0", got)
	}
}

func TestRangesOfTwoPodsAreDisjoint(t *testing.T) {
	n := sharedNode(t)
	var starts []uint32
	for range 4 {
		starts = append(starts, n.RunPod(t).Range(t))
	}
	slices.Sort(starts)
	for i := 1; i < len(starts); i++ {
		if starts[i]-starts[i-1] < 65536 {
			t.Errorf("ranges from %d and from %d overlap", starts[i-1], starts[i])
		}
	}
}

func TestImageFilesBelongToRootInsideAndOnDisk(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo))
	for _, file := range []string{"/", "/bin/box", "/etc/passwd", "/data/root"} {
		if got := c.Exec(t, "stat", "-c", "%u:%g", file); got != "0:0" {
			t.Errorf("%s belongs to %s inside, want 0:0", file, got)
		}
		for _, path := range layersWith(t, n, file) {
			// The writable layer's own root directory is the one thing that is the pod's on disk.
			if got := ownerOf(t, path); file != "/" && got != (owner{}) {
				t.Errorf("%s belongs to %+v on disk, want 0:0", path, got)
			}
		}
	}
}

func TestImageFilesOfOtherOwnersKeepThemInside(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo))
	for file, want := range map[string]string{
		"/data/nonroot":  "1000:1000",
		"/data/dir":      "1000:2000",
		"/data/dir/file": "1000:2000",
		"/home/nonroot":  "1000:1000",
	} {
		if got := c.Exec(t, "stat", "-c", "%u:%g", file); got != want {
			t.Errorf("%s belongs to %s inside, want %s", file, got, want)
		}
	}
	if got := c.Exec(t, "ls", "/data"); fields(got) != "added dir link nonroot root" {
		t.Errorf("/data holds %q: the last layer deletes \"removed\"", fields(got))
	}
}

func TestFileMadeInsideBelongsToRangePlusIDOnTheHost(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	start := pod.Range(t)
	for _, id := range []uint32{0, 1, labimage.NonRoot, labimage.LastID} {
		t.Run(fmt.Sprint(id), func(t *testing.T) {
			c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.User(int64(id), int64(id)))
			c.Exec(t, "touch", "/tmp/made")
			if got := c.Exec(t, "stat", "-c", "%u:%g", "/tmp/made"); got != fmt.Sprintf("%d:%d", id, id) {
				t.Errorf("inside it belongs to %s, want %d", got, id)
			}
			want := owner{UID: start + id, GID: start + id}
			if got := ownerOf(t, c.HostPath(t, "/tmp/made")); got != want {
				t.Errorf("on the host it belongs to %+v, want %+v", got, want)
			}
		})
	}
}

func TestChangedImageFileIsCopiedUpWithItsOwner(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo))
	c.Exec(t, "sh", "-c", "echo more >> /data/nonroot && chown 1:2 /data/root")
	for file, want := range map[string]owner{
		"/data/nonroot": {UID: 1000, GID: 1000},
		"/data/root":    {UID: 1, GID: 2},
	} {
		if got := c.Exec(t, "stat", "-c", "%u:%g", file); got != fmt.Sprintf("%d:%d", want.UID, want.GID) {
			t.Errorf("%s belongs to %s inside, want %+v", file, got, want)
		}
		start := pod.Range(t)
		shifted := owner{UID: start + want.UID, GID: start + want.GID}
		if got := ownerOf(t, c.HostPath(t, file)); got != shifted {
			t.Errorf("%s belongs to %+v on the host, want %+v", file, got, shifted)
		}
	}
}

func TestUnmappedHostIDShowsAsOverflow(t *testing.T) {
	n := sharedNode(t)
	dir := volume(t, n)
	write(t, filepath.Join(dir, "far"), "", 100000, 100000)
	write(t, filepath.Join(dir, "last"), "", 65535, 65535)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"))
	for file, want := range map[string]string{
		"/vol/far":    fmt.Sprintf("%d:%d", overflow, overflow),
		"/vol/last":   "65535:65535",
		"/sys/kernel": fmt.Sprintf("%d:%d", overflow, overflow), // the host's root owns it
	} {
		if got := c.Exec(t, "stat", "-c", "%u:%g", file); got != want {
			t.Errorf("%s belongs to %s inside, want %s", file, got, want)
		}
	}
}

func TestFilesOf65535MapAndAboveShowAsOverflow(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Owners))
	for id, want := range map[int]int{0: 0, 1000: 1000, 65534: 65534, 65535: 65535, 65536: overflow, 100000: overflow, 2000000000: overflow} {
		if got := c.Exec(t, "stat", "-c", "%u:%g", fmt.Sprintf("/owners/%d", id)); got != fmt.Sprintf("%d:%d", want, want) {
			t.Errorf("a file of %d in the image belongs to %s inside, want %d", id, got, want)
		}
	}
}

func TestVolumeFilesAreTheHostsIDsInsideAndOut(t *testing.T) {
	n := sharedNode(t)
	dir := volume(t, n)
	write(t, filepath.Join(dir, "given"), "from the host\n", 1000, 1000)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"), nodetest.User(1000, 1000))
	if got := c.Exec(t, "stat", "-c", "%u:%g", "/vol/given"); got != "1000:1000" {
		t.Errorf("a volume's file belongs to %s inside, want 1000:1000", got)
	}
	c.Exec(t, "sh", "-c", "echo mine > /vol/made && echo more >> /vol/given")
	for _, name := range []string{"made", "given"} {
		if got := ownerOf(t, filepath.Join(dir, name)); got != (owner{UID: 1000, GID: 1000}) {
			t.Errorf("%s belongs to %+v on disk, want 1000:1000", name, got)
		}
	}
}

func TestSetgroupsIsAllowed(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, probeImage(t, n))
	if got := c.Exec(t, "cat", "/proc/self/setgroups"); got != "allow" {
		t.Errorf("/proc/self/setgroups is %q, want allow", got)
	}
	if r := probe(t, c, "setgroups", "2000", "65535"); r.Errno != "" || !slices.Equal(r.Groups, []int{2000, 65535}) {
		t.Errorf("setgroups(2000, 65535) = %+v", r)
	}
}

func TestSetuidProgramsChangeTheUserInside(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, probeImage(t, n), nodetest.User(2000, 2000))
	for program, want := range map[string]int{probeSetuid: 0, probeSetuid1k: labimage.NonRoot} {
		r := parseResult(t, c.Exec(t, program, "ids"))
		if r.UID != want {
			t.Errorf("%s, called by 2000, runs as %d, want %d", program, r.UID, want)
		}
	}
}

func TestNothingIsCopiedOrChownedBelowALayer(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	collectGarbage(t, n) // what earlier pods wrote shall not go meanwhile
	before := treeState(t, snapshotsDir(n))
	for range 2 {
		c := n.RunPod(t).Run(t, image)
		c.Exec(t, "sh", "-c", "chown -R 1:1 /data /etc && rm /bin/box && echo x > /etc/passwd")
	}
	after := treeState(t, snapshotsDir(n))
	layers := map[string]fileState{}
	for path := range before {
		layers[path] = after[path]
	}
	// The directory that the pods' own snapshots appear in changes with them.
	delete(before, snapshotsDir(n))
	delete(layers, snapshotsDir(n))
	if diff := cmp.Diff(before, layers); diff != "" {
		t.Errorf("the layers on disk changed (-before +after):\n%s", diff)
	}
}

func TestImageWithoutLayersRunsFromAVolume(t *testing.T) {
	n := sharedNode(t)
	for _, kind := range []struct {
		name string
		opts []nodetest.PodOption
	}{{"with a user namespace", nil}, {"in the host's", []nodetest.PodOption{nodetest.HostUsers}}} {
		t.Run(kind.name, func(t *testing.T) {
			dir := volume(t, n)
			writeBox(t, n, dir, "sleep", "stat", "touch")
			pod := n.RunPod(t, kind.opts...)
			c := pod.Run(t, n.Image(t, labimage.Empty), nodetest.ReadOnlyMount(dir, "/box"))
			if got := c.Exec(t, "/box/stat", "-c", "%u:%g", "/"); got != "0:0" {
				t.Errorf("/ belongs to %s inside, want 0:0", got)
			}
			c.Exec(t, "/box/touch", "/made")
			if got := c.Exec(t, "/box/stat", "-c", "%u:%g", "/made"); got != "0:0" {
				t.Errorf("a file made inside belongs to %s, want 0:0", got)
			}
		})
	}
}

// TestImageWhoseRootIsNotOwnedByRoot sets the owner on disk, as snapshotters do that unpack by other means:
// containerd's unpacking ignores a layer's entry for the root directory.
func TestImageWhoseRootIsNotOwnedByRoot(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	image := n.Image(t, labimage.RootOwner)
	for _, path := range layersWith(t, n, "rootowner") {
		if err := os.Chown(filepath.Dir(path), 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	c := pod.Run(t, image)
	if got := c.Exec(t, "stat", "-c", "%u:%g", "/"); got != "1000:1000" {
		t.Errorf("/ belongs to %s inside, want 1000:1000", got)
	}
	start := pod.Range(t)
	if got, want := ownerOf(t, c.HostPath(t, "/.")), (owner{UID: start + 1000, GID: start + 1000}); got != want {
		t.Errorf("/ belongs to %+v on the host, want %+v", got, want)
	}
	if got := c.Exec(t, "stat", "-c", "%u:%g", "/bin/box"); got != "0:0" {
		t.Errorf("/bin/box belongs to %s inside, want 0:0", got)
	}
}
