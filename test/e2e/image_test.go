package e2e

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

func imageStatus(t *testing.T, n *nodetest.Node, ref string) *runtimeapi.Image {
	t.Helper()
	resp, err := n.Images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		t.Fatalf("ImageStatus: %v", err)
	}
	return resp.Image
}

func TestImageStatusByTagDigestAndID(t *testing.T) {
	n := sharedNode(t)
	spec := labimage.Spec{Layers: []labimage.Layer{{labimage.Text("status", "1\n")}}, User: "1234", Cmd: []string{"true"}}
	ref := n.ImageOf(t, "status:one", spec)
	digest := n.PushImage(t, "status:one", spec)
	img := imageStatus(t, n, ref)
	if img == nil {
		t.Fatal("a pulled image has no status")
	}
	byDigest := strings.TrimSuffix(ref, ":one") + "@" + digest
	if len(img.RepoTags) != 1 || img.RepoTags[0] != ref || len(img.RepoDigests) != 1 || img.RepoDigests[0] != byDigest {
		t.Errorf("tags are %v and digests %v, want %s and %s", img.RepoTags, img.RepoDigests, ref, byDigest)
	}
	if img.Size == 0 || img.Uid.GetValue() != 1234 {
		t.Errorf("size is %d and user %v, want some and 1234", img.Size, img.Uid)
	}
	for _, other := range []string{byDigest, img.Id} {
		if got := imageStatus(t, n, other); got.GetId() != img.Id {
			t.Errorf("status by %s is %v, want image %s", other, got, img.Id)
		}
	}
	removeImage(t, n, ref)
	if got := imageStatus(t, n, ref); got != nil {
		t.Errorf("a removed image has the status %v", got)
	}
	removeImage(t, n, ref) // again: CRI wants no error
}

// removeImage may be called when the test has ended, too.
func removeImage(t *testing.T, n *nodetest.Node, ref string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if _, err := n.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}}); err != nil {
		t.Errorf("RemoveImage: %v", err)
	}
}

func TestListImagesHoldsEachImageOnce(t *testing.T) {
	n := sharedNode(t)
	ref := n.Image(t, labimage.Demo)
	resp, err := n.Images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, img := range resp.Images {
		seen[img.Id]++
	}
	id := imageStatus(t, n, ref).Id
	if seen[id] != 1 {
		t.Errorf("image %s is listed %d times", id, seen[id])
	}
	filtered, err := n.Images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{
		Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: ref}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(filtered.Images) != 1 || filtered.Images[0].Id != id {
		t.Errorf("a list of %s holds %v", ref, filtered.Images)
	}
}

func TestPullTakesTheMachinesPlatformFromAnIndex(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.MultiArch))
	if got := c.Exec(t, "cat", "/etc/arch"); got != runtime.GOARCH {
		t.Errorf("the image is for %s, want %s", got, runtime.GOARCH)
	}
}

// TestPullFromAMirror goes by the hosts.toml of a registry whose name leads nowhere.
func TestPullFromAMirror(t *testing.T) {
	n := sharedNode(t)
	spec := labimage.Catalogue(n.Box())[labimage.Demo]
	spec.Labels = map[string]string{"mirrored": "yes"}
	digest := n.PushImage(t, "mirrored/demo:v1", spec)
	if err := labimage.WriteHosts(n.CertsDir, "registry.example", n.Registry.Addr()); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"registry.example/mirrored/demo:v1", "registry.example/mirrored/demo@" + digest} {
		resp, err := n.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
		if err != nil {
			t.Fatalf("pull %s: %v", ref, err)
		}
		if got := imageStatus(t, n, ref); got.GetId() != resp.ImageRef && !strings.Contains(strings.Join(got.GetRepoDigests(), " "), resp.ImageRef) {
			t.Errorf("PullImage returns %s, status of %s is %v", resp.ImageRef, ref, got)
		}
	}
	if n.Registry.Requests("GET /v2/mirrored/demo/manifests/"+digest) == 0 {
		t.Error("the mirror was not asked for the manifest")
	}
	n.RunPod(t).Run(t, "registry.example/mirrored/demo:v1").Exec(t, "true")
}

func TestImageFsInfoNamesTheSnapshotsFilesystem(t *testing.T) {
	n := sharedNode(t)
	n.Image(t, labimage.Demo)
	resp, err := n.Images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.ImageFilesystems) != 1 {
		t.Fatalf("image filesystems are %v, want one", resp.ImageFilesystems)
	}
	fs := resp.ImageFilesystems[0]
	if !strings.HasPrefix(fs.FsId.GetMountpoint(), n.Containerd.Root) || fs.UsedBytes.GetValue() == 0 || fs.InodesUsed.GetValue() == 0 || fs.Timestamp == 0 {
		t.Errorf("image filesystem is %v, want used bytes and inodes below %s", fs, n.Containerd.Root)
	}
	if len(resp.ContainerFilesystems) == 0 {
		t.Error("there is no container filesystem")
	}
}

func TestRemovedImageIsNotFoundByCreate(t *testing.T) {
	n := sharedNode(t)
	// An image of its own: with it all names of the same image go, which other tests may have pulled.
	ref := n.ImageOf(t, "gone:latest", smallImage("gone"))
	removeImage(t, n, ref)
	pod := n.RunPod(t)
	_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(ref))
	wantError(t, err, codes.NotFound, ref)
}
