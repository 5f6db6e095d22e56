package container

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// imageMount shows an image at /image, after a mount of the host.
func imageMount(t *testing.T, image, subPath string) Spec {
	spec := containerSpec("a")
	spec.Mounts = []ocispec.Mount{
		{HostPath: t.TempDir(), ContainerPath: "/host"},
		{ContainerPath: "/image", Image: &ocispec.MountedImage{Image: image, SubPath: subPath}},
	}
	return spec
}

func TestImageVolume(t *testing.T) {
	for subPath, below := range map[string]string{
		"": "", "data/dir": "/data/dir", "link/dir": "/data/dir", "out": "/data/dir", "data/./dir/..": "/data",
	} {
		t.Run(subPath, func(t *testing.T) {
			n := volumeNode(t)
			n.engine.images["art"] = Image{ID: "sha256:9", Ref: "art@sha256:8"}
			id, err := n.Create(t.Context(), n.sb, imageMount(t, "art", subPath))
			if err != nil {
				t.Fatal(err)
			}
			target := n.Paths(id).Volume(1)
			got := n.engine.requests[1]
			if got.Target != target || got.UserNS != n.sb.Pins.User || got.Pod != n.sb.ID || !got.Readonly {
				t.Errorf("mounted by %+v, want read-only and idmapped for the pod", got)
			}
			if !mountedFrom(n.engine.records[id], "/image", target+below, "ro") ||
				mountedFrom(n.engine.records[id], "/image", target+below, "idmap") {
				t.Errorf("bound by %+v, want %s, read-only and not idmapped twice", n.engine.records[id].Spec.Mounts, target+below)
			}
			key := id + "-volume-1"
			if !n.engine.views[key] || !cmp.Equal(n.engine.records[id].ViewKeys, []string{key}) {
				t.Errorf("views %v and held by the record %v, want %s", n.engine.views, n.engine.records[id].ViewKeys, key)
			}
			rec, err := n.Get(id)
			if want := []ImageVolume{{Mount: 1, ImageID: "sha256:9", ImageRef: "art@sha256:8"}}; err != nil || !cmp.Equal(rec.ImageVolumes, want) {
				t.Errorf("recorded %+v, %v, want %+v", rec.ImageVolumes, err, want)
			}
			if err := n.Remove(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			n.wantNothingLeft(t)
		})
	}
}

func TestImageVolumeFailureLeavesNothing(t *testing.T) {
	for _, tc := range []struct {
		name, fail, image, subPath string
		want                       error
	}{
		{name: "image that is not present", image: "absent", want: errdefs.ErrNotFound},
		{name: "view", fail: "view", image: "busybox", want: errInjected},
		{name: "mount", fail: "mount view", image: "busybox", want: errInjected},
		{name: "missing sub-path", image: "busybox", subPath: "data/absent", want: os.ErrNotExist},
		{name: "sub-path is a file", image: "busybox", subPath: "data/file", want: ErrInvalid},
		{name: "sub-path is a loop", image: "busybox", subPath: "loop", want: ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := volumeNode(t)
			n.engine.fail = tc.fail
			_, err := n.Create(t.Context(), n.sb, imageMount(t, tc.image, tc.subPath))
			if !errors.Is(err, tc.want) || !errors.Is(err, ErrImageVolume) {
				t.Fatalf("got %v, want %v and ErrImageVolume", err, tc.want)
			}
			if !strings.HasPrefix(err.Error(), "ImageVolumeMountFailed: ") {
				t.Errorf("kubelet does not know %q", err)
			}
			if got := n.engine.left(); len(got) > 0 {
				t.Errorf("left in the engine: %q", got)
			}
			if got := n.table.All(); len(got) > 0 {
				t.Errorf("left in the database: %v", got)
			}
		})
	}
}
