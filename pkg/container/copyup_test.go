package container

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

func TestDeclaredVolumes(t *testing.T) {
	none := struct{}{}
	got := declaredVolumes(map[string]struct{}{
		"/data": none, "/data/": none, "relative/./dir": none, "/covered/": none, "/covered/below": none, "/../up": none,
	}, []ocispec.Mount{{ContainerPath: "covered"}, {ContainerPath: "/elsewhere"}})
	want := []string{"/covered/below", "/data", "/relative/dir", "/up"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// volumeNode is a node with an image that declares the volumes, and has a file and modes of its own there.
func volumeNode(t *testing.T, volumes ...string) *node {
	n := newNode(t)
	config := imagespec.ImageConfig{Cmd: []string{"sh"}, Volumes: map[string]struct{}{}}
	for _, v := range volumes {
		config.Volumes[v] = struct{}{}
	}
	n.engine.images["busybox"] = Image{ID: "sha256:1", Config: config}
	n.engine.content = func(target string) {
		fillTree(t, target)
	}
	return n
}

func fillTree(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"data/dir", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for file, mode := range map[string]os.FileMode{"data/file": 0o640, "data/dir/program": 0o755 | os.ModeSetuid, "etc/config": 0o600} {
		path := filepath.Join(root, file)
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link": "/data", "out": "/../../data/dir", "data/self": "file", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVolumesAreFilledFromAnUnshiftedView(t *testing.T) {
	n := volumeNode(t, "/data", "/link/dir", "/out", "/missing/below")
	id, err := n.Create(t.Context(), n.sb, containerSpec("a"))
	if err != nil {
		t.Fatal(err)
	}
	view := n.engine.requests[1]
	if view.UserNS != "" || !view.Readonly || view.Target != n.Paths(id).Image {
		t.Errorf("the image was read through %+v, want a read-only mount without a user namespace", view)
	}
	if got := n.engine.left(); !cmp.Equal(got, []string{"mount " + n.Paths(id).Rootfs, "record " + id, "snapshot " + id}) {
		t.Errorf("the container has %q: the view has to be gone", got)
	}
	rec, err := n.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]string{
		"/data":          {"dir": "drwxr-x---", "dir/program": "urwxr-xr-x", "file": "-rw-r-----", "self": "Lrwxrwxrwx"},
		"/link/dir":      {"program": "urwxr-xr-x"},
		"/out":           {"program": "urwxr-xr-x"},
		"/missing/below": {},
	}
	for i, volume := range rec.DeclaredVolumes {
		dir := n.Paths(id).DeclaredVolume(i)
		if diff := cmp.Diff(want[volume], modes(t, dir)); diff != "" {
			t.Errorf("content of %s: -want +got:\n%s", volume, diff)
		}
		if !mountedFrom(n.engine.records[id], volume, dir, "idmap") {
			t.Errorf("%s is not an idmapped mount of %s: %+v", volume, dir, n.engine.records[id].Spec.Mounts)
		}
	}
	parent, err := os.Stat(n.Paths(id).Declared)
	if err != nil || parent.Mode().Perm() != 0o700 {
		t.Errorf("others of the host reach the volumes: %v, %v", parent.Mode(), err)
	}
	if err := n.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.wantNothingLeft(t)
	n.wantNoVolumes(t)
}

// Without a user namespace the root filesystem has the owners of the image itself.
func TestVolumesOfHostUsersAreFilledFromTheRootFilesystem(t *testing.T) {
	n := volumeNode(t, "/data")
	n.sb.Range, n.sb.Spec.Namespaces.User, n.sb.Pins.User = nil, nil, ""
	id, err := n.Create(t.Context(), n.sb, containerSpec("a"))
	if err != nil {
		t.Fatal(err)
	}
	if len(n.engine.requests) != 1 {
		t.Errorf("mounted %+v, want the root filesystem only", n.engine.requests)
	}
	if got := modes(t, n.Paths(id).DeclaredVolume(0)); got["file"] != "-rw-r-----" {
		t.Errorf("the volume has %v", got)
	}
	if mountedFrom(n.engine.records[id], "/data", n.Paths(id).DeclaredVolume(0), "idmap") {
		t.Error("the volume is idmapped in a pod without a user namespace")
	}
}

func TestVolumeFailureLeavesNothing(t *testing.T) {
	for _, step := range []string{"view", "mount view", "idmap", "record"} {
		t.Run(step, func(t *testing.T) {
			n := volumeNode(t, "/data")
			n.engine.fail = step
			if _, err := n.Create(t.Context(), n.sb, containerSpec("a")); !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want the injected error", err)
			}
			n.wantNothingLeft(t)
			n.wantNoVolumes(t)
		})
	}
	for _, volume := range []string{"/etc/config", "/etc/config/below", "/loop"} {
		t.Run(volume, func(t *testing.T) {
			n := volumeNode(t, volume)
			if _, err := n.Create(t.Context(), n.sb, containerSpec("a")); !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			n.wantNothingLeft(t)
			n.wantNoVolumes(t)
		})
	}
}

// A daemon that is killed while it fills volumes finds them by the record.
func TestRecoverRemovesHalfFilledVolumes(t *testing.T) {
	n := volumeNode(t, "/data")
	image, handler := n.engine.images["busybox"], n.opts.Handlers["runc"]
	b := &build{sb: n.sb, rec: n.newRecord(n.sb, containerSpec("a"), image, handler), image: image, handler: handler}
	if _, err := n.reserve(b.rec); err != nil {
		t.Fatal(err)
	}
	paths := n.Paths(b.rec.ID)
	for _, dir := range []string{paths.Rootfs, paths.Declared} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	root, err := n.unshiftedRoot(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if err := copyUp(root, "/data", paths.DeclaredVolume(0)); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	if err := n.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.wantNothingLeft(t)
	n.wantNoVolumes(t)
}

func (n *node) wantNoVolumes(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(filepath.Join(n.opts.RootDir, "volumes")); err != nil || len(left) > 0 {
		t.Errorf("left of the volumes: %v, %v", left, err)
	}
}

// modes lists what is below a directory.
func modes(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && path != dir {
			out[path[len(dir)+1:]] = info.Mode().String()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return out
}

func mountedFrom(rec EngineRecord, destination, source, option string) bool {
	for _, m := range rec.Spec.Mounts {
		if m.Destination == destination && m.Source == source {
			for _, o := range m.Options {
				if o == option {
					return true
				}
			}
		}
	}
	return false
}
