package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// declared is the one volume that a container's image declares, on disk.
func declared(n *nodetest.Node, c *nodetest.Container) string {
	return filepath.Join(n.Daemon.Root, "volumes", c.ID, "0")
}

func TestDeclaredVolumeHasTheImagesContentAndOwners(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		c := pod.Run(t, n.Image(t, labimage.Volume))
		for file, want := range map[string]owner{
			"": {}, "root": {}, "nonroot": {UID: 1000, GID: 1000}, "dir": {UID: 1000, GID: 2000}, "dir/file": {UID: 1000, GID: 2000},
			"link": {UID: 1000, GID: 1000},
		} {
			if got := parseOwner(t, c.Exec(t, "stat", "-c", "%u:%g", "/data/"+file)); file != "link" && got != want {
				t.Errorf("/data/%s belongs to %+v inside, want %+v", file, got, want)
			}
			// On disk a volume has the owners that the pod sees: whose pod it is makes no difference.
			if got := ownerOf(t, filepath.Join(declared(n, c), file)); got != want {
				t.Errorf("/data/%s belongs to %+v on disk, want %+v", file, got, want)
			}
		}
		if got := c.Exec(t, "stat", "-c", "%a", "/data/dir"); got != "750" {
			t.Errorf("/data/dir has mode %s, want 750", got)
		}
		if got := c.Exec(t, "cat", "/data/link"); got != "1000" {
			t.Errorf("/data/link leads to %q, want the content of nonroot", got)
		}
	})
}

func TestDeclaredVolumeIsWrittenOutsideOfTheRootFilesystem(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		image := n.Image(t, labimage.Volume)
		c := pod.Run(t, image, readOnlyRoot)
		wantFailure(t, c, "touch", "/made")
		c.Exec(t, "sh", "-c", "echo mine > /data/made && chown 1000:1000 /data/made && rm /data/root")
		if got := ownerOf(t, filepath.Join(declared(n, c), "made")); got != (owner{UID: 1000, GID: 1000}) {
			t.Errorf("a file made in the volume belongs to %+v on disk, want 1000:1000", got)
		}
		other := pod.Run(t, image)
		if got := fields(other.Exec(t, "ls", "/data")); got != "dir link nonroot removed root" {
			t.Errorf("another container's volume holds %q", got)
		}
		dir := declared(n, c)
		c.Remove(t)
		if _, err := os.Lstat(filepath.Dir(dir)); !os.IsNotExist(err) {
			t.Errorf("the volume of a removed container: %v", err)
		}
	})
}

func TestDeclaredVolumeThatTheClientCovers(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		dir := volume(t, n)
		c := pod.Run(t, n.Image(t, labimage.Volume), nodetest.Mount(dir, "/data/"))
		c.Exec(t, "touch", "/data/made")
		if got := ownerOf(t, filepath.Join(dir, "made")); got != (owner{}) {
			t.Errorf("the file belongs to %+v on disk, want 0:0", got)
		}
		if _, err := os.Lstat(declared(n, c)); !os.IsNotExist(err) {
			t.Errorf("a volume was made that is covered: %v", err)
		}
	})
}

// TestDeclaredVolumeBehindSymlinks holds that links of the image lead to its own files, never to the host's.
func TestDeclaredVolumeBehindSymlinks(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		spec := subPathImage(n)
		spec.Volumes = []string{"/beyond/dir", "/outside"}
		spec.Layers = append(spec.Layers, labimage.Layer{labimage.Symlink("outside", "../../../../etc")})
		c := pod.Run(t, n.ImageOf(t, "linkedvolumes:latest", spec))
		if got := c.Exec(t, "cat", "/data/dir/file"); got != "deep" {
			t.Errorf("the volume behind a link holds %q", got)
		}
		c.Exec(t, "touch", "/data/dir/made")
		if got := ownerOf(t, filepath.Join(declared(n, c), "made")); got != (owner{}) {
			t.Errorf("a file made in the volume belongs to %+v on disk, want 0:0", got)
		}
		image, err := os.ReadFile(filepath.Join(filepath.Dir(declared(n, c)), "1", "passwd"))
		if err != nil || string(image) != c.Exec(t, "cat", "/etc/passwd")+"\n" {
			t.Errorf("the volume behind a link to /etc holds %q, %v", image, err)
		}
	})
}

func TestDeclaredVolumeSurvivesARestartOfTheDaemon(t *testing.T) {
	n := ownNode(t, labnode.Options{})
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Volume))
	created := pod.Create(t, n.Image(t, labimage.Volume))
	c.Exec(t, "sh", "-c", "echo kept > /data/made")
	crash(t, n)
	if got := c.Exec(t, "cat", "/data/made"); got != "kept" {
		t.Errorf("after a restart the volume holds %q", got)
	}
	created.Start(t)
	if got := created.Exec(t, "cat", "/data/root"); got != "0" {
		t.Errorf("the volume of a container that was created before the restart holds %q", got)
	}
	pod.Remove(t)
	if left, err := os.ReadDir(filepath.Join(n.Daemon.Root, "volumes")); err != nil || len(left) > 0 {
		t.Errorf("left of the volumes: %v, %v", left, err)
	}
}
