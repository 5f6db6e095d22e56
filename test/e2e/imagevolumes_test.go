package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// imageVolume shows an image's directory at /image.
func imageVolume(image, subPath string) nodetest.ContainerOption {
	return func(c *runtimeapi.ContainerConfig) {
		c.Mounts = append(c.Mounts, &runtimeapi.Mount{
			ContainerPath: "/image", Readonly: true, ImageSubPath: subPath,
			Image: &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: "as/spelled:here"},
		})
	}
}

func TestImageVolumeShowsTheFilesOfAnImage(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		c := pod.Run(t, probeImage(t, n), imageVolume(n.Image(t, labimage.Volume), ""), nodetest.Capabilities("SYS_ADMIN"), nodetest.Unconfined)
		for file, want := range map[string]string{
			"/image": "0:0", "/image/data/root": "0:0", "/image/data/nonroot": "1000:1000", "/image/data/dir": "1000:2000",
		} {
			if got := c.Exec(t, "stat", "-c", "%u:%g", file); got != want {
				t.Errorf("%s belongs to %s inside, want %s", file, got, want)
			}
		}
		if r := probe(t, c, "remount", "/image"); r.Errno != "EPERM" && r.Errno != "EROFS" {
			t.Errorf("an image volume, made writable: %+v, want EPERM or EROFS", r)
		}
		wantFailure(t, c, "touch", "/image/data/made")
		status, err := n.Runtime.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: c.ID})
		if err != nil {
			t.Fatal(err)
		}
		m := status.Status.Mounts[0]
		if m.Image.GetImage() != n.Image(t, labimage.Volume) || m.Image.GetUserSpecifiedImage() != "as/spelled:here" ||
			m.Image.GetImageRef() == "" || m.HostPath != "" || !m.Readonly {
			t.Errorf("status reports the mount %v", m)
		}
	})
}

func TestImageVolumeWithSubPath(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		image := n.ImageOf(t, "subpaths:latest", subPathImage(n))
		for subPath, want := range map[string]string{"data/dir": "deep", "absolute/dir": "deep", "beyond/dir": "deep"} {
			c := pod.Run(t, n.Image(t, labimage.Demo), imageVolume(image, subPath))
			if got := c.Exec(t, "cat", "/image/file"); got != want {
				t.Errorf("sub-path %s has a file with %q, want %q", subPath, got, want)
			}
			if got := c.Exec(t, "stat", "-c", "%u:%g", "/image/file"); got != "1000:2000" {
				t.Errorf("the file below sub-path %s belongs to %s inside, want 1000:2000", subPath, got)
			}
		}
	})
}

// subPathImage has links to a directory that would lead out of the image on the host.
func subPathImage(n *nodetest.Node) labimage.Spec {
	spec := labimage.Catalogue(n.Box())[labimage.Volume]
	spec.Volumes = nil
	spec.Layers = append(spec.Layers[:len(spec.Layers):len(spec.Layers)], labimage.Layer{
		labimage.Symlink("absolute", "/data"), labimage.Symlink("beyond", "../../../../../data"),
	})
	return spec
}

func TestImageVolumeThatCannotBeMounted(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	present := n.Image(t, labimage.Volume)
	change := func(f func(*runtimeapi.Mount)) nodetest.ContainerOption {
		return func(c *runtimeapi.ContainerConfig) {
			imageVolume(present, "")(c)
			f(c.Mounts[0])
		}
	}
	for _, tc := range []struct {
		name  string
		opt   nodetest.ContainerOption
		code  codes.Code
		parts []string
	}{
		{"missing image", imageVolume(n.Registry.Ref("absent:latest"), ""), codes.NotFound, []string{"ImageVolumeMountFailed", "absent", "/image"}},
		{"missing sub-path", imageVolume(present, "data/absent"), codes.InvalidArgument, []string{"ImageVolumeMountFailed", "data/absent"}},
		{"sub-path of a file", imageVolume(present, "data/root"), codes.InvalidArgument, []string{"data/root", "no directory"}},
		{"sub-path out of the image", imageVolume(present, "../data"), codes.InvalidArgument, []string{"image_sub_path", "../data"}},
		{"absolute sub-path", imageVolume(present, "/data"), codes.InvalidArgument, []string{"image_sub_path"}},
		{"image without a name", imageVolume("", ""), codes.InvalidArgument, []string{"without a name"}},
		{"host path too", change(func(m *runtimeapi.Mount) { m.HostPath = "/tmp" }), codes.InvalidArgument, []string{"both", "/tmp"}},
		{"sub-path only", change(func(m *runtimeapi.Mount) { m.Image, m.HostPath, m.ImageSubPath = nil, "/tmp", "x" }), codes.InvalidArgument, []string{"no image"}},
		{"propagation", change(func(m *runtimeapi.Mount) { m.Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL }), codes.InvalidArgument, []string{"BIDIRECTIONAL"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(present, tc.opt))
			wantError(t, err, tc.code, tc.parts...)
		})
	}
}

// TestImageVolumeOutlivesItsImage holds that the container holds the files, and not the image's name.
func TestImageVolumeOutlivesItsImage(t *testing.T) {
	n := ownNode(t, labnode.Options{})
	pod := n.RunPod(t)
	volume := n.ImageOf(t, "art:latest", labimage.Spec{Layers: []labimage.Layer{{labimage.Text("art", "still here\n")}}})
	c := pod.Run(t, n.Image(t, labimage.Demo), imageVolume(volume, ""))
	created := pod.Create(t, n.Image(t, labimage.Demo), imageVolume(volume, ""))
	if _, err := n.Images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: volume}}); err != nil {
		t.Fatal(err)
	}
	collectGarbage(t, n)
	created.Start(t)
	for _, c := range []*nodetest.Container{c, created} {
		if got := c.Exec(t, "cat", "/image/art"); got != "still here" {
			t.Errorf("after its image was removed the volume holds %q", got)
		}
	}
	pod.Remove(t)
	collectGarbage(t, n)
	if left, err := filepath.Glob(filepath.Join(snapshotsDir(n), "*", "fs", "art")); err != nil || len(left) > 0 {
		t.Errorf("nobody uses the volume any more, and the disk has %v, %v", left, err)
	}
	if left, err := os.ReadDir(filepath.Join(n.Daemon.Root, "volumes")); err == nil && len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
