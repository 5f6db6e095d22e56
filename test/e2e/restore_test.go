package e2e

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	metadata "github.com/checkpoint-restore/checkpointctl/lib"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// checkpointImage pushes an image with the content of an archive, as buildah makes it.
func checkpointImage(t *testing.T, n *nodetest.Node, name, archive string, annotations map[string]string) string {
	t.Helper()
	dir, names := archived(t, archive)
	var layer labimage.Layer
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			layer = append(layer, labimage.Dir(name, 0o700))
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		layer = append(layer, labimage.File{Path: name, Mode: 0o600, Data: data})
	}
	return n.ImageOf(t, name, labimage.Spec{Layers: []labimage.Layer{layer}, Annotations: annotations})
}

// TestRestoreFromImage runs checkpoints that came as images, under both annotations, and holds that
// it takes the operator's word.
func TestRestoreFromImage(t *testing.T) {
	testkit.RequireCRIU(t)
	t.Parallel()
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Extra: "restoreCheckpointImages: true"}})
	c := n.RunPod(t, nodetest.HostUsers).Run(t, n.Image(t, labimage.Demo), nodetest.Shell(countsOn))
	awaitNumber(t, c, 5)
	archive, err := checkpointTo(t, n, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	last := lastNumber(t, c)
	c.Remove(t)
	pod := n.RunPod(t, nodetest.HostUsers)
	for image, key := range map[string]string{
		"common:1": metadata.CheckpointAnnotationName,
		"crio:1":   "io.kubernetes.cri-o.annotations.checkpoint.name",
	} {
		restored := pod.Run(t, checkpointImage(t, n, image, archive, map[string]string{key: "counter"}))
		awaitNumber(t, restored, last+5)
		if first := number(restored.Log(t)[0]); first < 5 || first > last+1 {
			t.Errorf("%s goes on with %d, the checkpoint was between 5 and %d", image, first, last)
		}
		if got := restored.Exec(t, "cat", "/made"); got != "kept" {
			t.Errorf("%s: a file that the container made has %q", image, got)
		}
		restored.Remove(t)
	}
}

// TestRestoreFromImageHasToBeAllowed holds the default.
func TestRestoreFromImageHasToBeAllowed(t *testing.T) {
	n := sharedNode(t)
	image := n.ImageOf(t, "refused-checkpoint:1", labimage.Spec{
		Layers:      []labimage.Layer{{labimage.Text(metadata.ConfigDumpFile, "{}")}},
		Annotations: map[string]string{metadata.CheckpointAnnotationName: "any"},
	})
	pod := n.RunPod(t, nodetest.HostUsers)
	_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image))
	wantError(t, err, codes.FailedPrecondition, "restoreCheckpointImages", image)
}

// TestRestoreKeepsDeclaredVolumes holds that a volume which the image declares is as the container left it.
func TestRestoreKeepsDeclaredVolumes(t *testing.T) {
	testkit.RequireCRIU(t)
	n := sharedNode(t)
	c := n.RunPod(t, nodetest.HostUsers).Run(t, n.Image(t, labimage.Volume), nodetest.Shell("rm -r /data/dir; echo new > /data/new; chown 5:6 /data/new; echo 1; sleep 1000"))
	awaitNumber(t, c, 1)
	archive, err := checkpointTo(t, n, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	restored := n.RunPod(t, nodetest.HostUsers).Run(t, archive)
	if got := restored.Exec(t, "sh", "-c", "stat -c %u:%g /data/new; cat /data/new; ls /data/dir || echo gone"); got != "5:6\nnew\ngone" {
		t.Errorf("the volume has %q", got)
	}
}

// TestRestoreOfABadArchive gives CreateContainer archives that are none, or try to leave their place.
func TestRestoreOfABadArchive(t *testing.T) {
	n := sharedNode(t)
	dir := volume(t, n)
	pod := n.RunPod(t, nodetest.HostUsers)
	spec := `{"process":{"args":["x"]},"linux":{}}`
	config := `{"rootfsImageRef":"none.example/image@sha256:0000000000000000000000000000000000000000000000000000000000000000"}`
	file := func(name, data string) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), PAXRecords: map[string]string{"TEST.data": data}}
	}
	good := []*tar.Header{file("spec.dump", spec), file("config.dump", config), file("checkpoint/inventory.img", "x")}
	for name, c := range map[string]struct {
		entries []*tar.Header
		code    codes.Code
		says    string
	}{
		"empty":             {nil, codes.InvalidArgument, "config.dump"},
		"no images":         {good[:2], codes.InvalidArgument, "CRIU"},
		"no JSON":           {[]*tar.Header{file("config.dump", "{")}, codes.InvalidArgument, "config.dump"},
		"a link for a file": {[]*tar.Header{{Typeflag: tar.TypeSymlink, Name: "spec.dump", Linkname: "/etc/passwd"}}, codes.InvalidArgument, "spec.dump"},
		"a link for a directory": {[]*tar.Header{
			{Typeflag: tar.TypeSymlink, Name: "checkpoint", Linkname: dir}, file("checkpoint/escaped", "x"), good[0], good[1],
		}, codes.NotFound, "none.example"},
		"a hard link":   {[]*tar.Header{{Typeflag: tar.TypeLink, Name: "checkpoint/a", Linkname: "/etc/passwd"}}, codes.InvalidArgument, "checkpoint/a"},
		"a device":      {[]*tar.Header{{Typeflag: tar.TypeChar, Name: "checkpoint/a"}}, codes.InvalidArgument, "checkpoint/a"},
		"no base image": {good, codes.NotFound, "has to be pulled first"},
		"a file twice":  {append(good[:3:3], good[0]), codes.InvalidArgument, "spec.dump"},
	} {
		t.Run(name, func(t *testing.T) {
			var data bytes.Buffer
			w := tar.NewWriter(&data)
			for _, hdr := range c.entries {
				plain := *hdr
				plain.PAXRecords = nil
				if err := w.WriteHeader(&plain); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write([]byte(hdr.PAXRecords["TEST.data"])); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			archive := filepath.Join(dir, "bad.tar")
			if err := os.WriteFile(archive, data.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(archive))
			wantError(t, err, c.code, c.says)
			if _, err := os.Stat(filepath.Join(dir, "escaped")); err == nil {
				t.Error("the archive wrote outside of its place")
			}
		})
	}
	for _, path := range []string{dir, filepath.Join(dir, "missing"), "/dev/zero"} {
		_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(path))
		wantError(t, err, codes.InvalidArgument, path)
	}
	if list, err := n.Runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{}); err != nil || len(list.Containers) > 0 {
		t.Errorf("containers are left: %v %v", list, err)
	}
	wantEmpty(t, filepath.Join(n.Daemon.Root, "restores"))
}
