package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// listed are the images that a filter lets through, by id.
func listed(t *testing.T, n *nodetest.Node, filter string) map[string]*runtimeapi.Image {
	t.Helper()
	req := &runtimeapi.ListImagesRequest{}
	if filter != "" {
		req.Filter = &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: filter}}
	}
	resp, err := n.Images.ListImages(t.Context(), req)
	if err != nil {
		t.Fatalf("ListImages: %v", err)
	}
	byID := map[string]*runtimeapi.Image{}
	for _, img := range resp.Images {
		if byID[img.Id] != nil {
			t.Errorf("image %s is listed twice", img.Id)
		}
		byID[img.Id] = img
	}
	return byID
}

// TestImageIDStaysTheSame whatever name an image is pulled by, however often, and in whatever manifest: it is the digest
// of the config. All names of it are in its status.
func TestImageIDStaysTheSame(t *testing.T) {
	n := sharedNode(t)
	spec := smallImage("same")
	want := configDigest(t, spec)
	img, err := labimage.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	digest := n.PushImage(t, "same/one:v1", spec)
	n.PushImage(t, "same/one:v2", spec)
	n.PushImage(t, "same/two:v1", spec)
	other, err := n.Registry.Push(t.Context(), "same/three:v1", mutate.MediaType(img, types.DockerManifestSchema2))
	if err != nil {
		t.Fatal(err)
	}
	host := n.Registry.Addr() + "/same/"
	for _, name := range []string{"one:v1", "one:v2", "one@" + digest, "two:v1", "three:v1", "one:v1"} {
		if id := pulled(t, n, host+name); id != want {
			t.Errorf("pulled as %s its id is %s, want %s", name, id, want)
		}
	}
	tags := []string{host + "one:v1", host + "one:v2", host + "three:v1", host + "two:v1"}
	digests := []string{host + "one@" + digest, host + "three@" + other, host + "two@" + digest}
	slices.Sort(digests)
	for _, ref := range append(append([]string{want, strings.TrimPrefix(want, "sha256:"), want[7:20]}, tags...), digests...) {
		got := imageStatus(t, n, ref)
		if got.GetId() != want || !slices.Equal(got.GetRepoTags(), tags) || !slices.Equal(got.GetRepoDigests(), digests) {
			t.Errorf("status by %s is %v,\nwant id %s, tags %v, digests %v", ref, got, want, tags, digests)
		}
		if got := listed(t, n, ref); len(got) != 1 || got[want] == nil {
			t.Errorf("a list of %s holds %v", ref, got)
		}
	}
	if got := listed(t, n, ""); got[want] == nil {
		t.Error("a list without a filter lacks it")
	}
	for _, ref := range []string{host + "one:v3", "same/one:v1", "sha256:" + strings.Repeat("0", 64), "no such name"} {
		if got := listed(t, n, ref); len(got) != 0 {
			t.Errorf("a list of %s holds %v", ref, got)
		}
		if got := imageStatus(t, n, ref); got != nil {
			t.Errorf("status by %s is %v", ref, got)
		}
	}
	// The tag moves: the old image keeps its other names, and loses this one to the new.
	n.PushImage(t, "same/one:v1", smallImage("moved"))
	moved := pulled(t, n, host+"one:v1")
	if got := imageStatus(t, n, host+"one:v1"); moved == want || got.GetId() != moved {
		t.Errorf("the moved tag names %s, want %s", got.GetId(), moved)
	}
	if got := imageStatus(t, n, want).GetRepoTags(); !slices.Equal(got, tags[1:]) {
		t.Errorf("the image that it moved away from has the tags %v, want %v", got, tags[1:])
	}
	// One removal takes all names.
	removeImage(t, n, host+"two:v1")
	for _, ref := range append(tags[1:], digests...) {
		if got := imageStatus(t, n, ref); got != nil {
			t.Errorf("after the removal of the image %s still names %s", ref, got.Id)
		}
	}
}

// TestImageStatusTellsTheUser: kubelet decides on runAsNonRoot by it.
func TestImageStatusTellsTheUser(t *testing.T) {
	n := sharedNode(t)
	for user, want := range map[string]struct {
		uid  *runtimeapi.Int64Value
		name string
	}{
		"":             {nil, ""},
		"0":            {&runtimeapi.Int64Value{}, ""},
		"1000":         {&runtimeapi.Int64Value{Value: 1000}, ""},
		"1000:2000":    {&runtimeapi.Int64Value{Value: 1000}, ""},
		"nonroot":      {nil, "nonroot"},
		"nonroot:last": {nil, "nonroot"},
	} {
		spec := smallImage("user " + user)
		spec.User = user
		name := fmt.Sprintf("users/u%x:v1", user)
		n.PushImage(t, name, spec)
		pulled(t, n, n.Registry.Ref(name))
		got := imageStatus(t, n, n.Registry.Ref(name))
		if (got.GetUid() == nil) != (want.uid == nil) || got.GetUid().GetValue() != want.uid.GetValue() || got.GetUsername() != want.name {
			t.Errorf("user %q is reported as %v and %q, want %v and %q", user, got.GetUid(), got.GetUsername(), want.uid, want.name)
		}
	}
}

// TestPinnedImages: by the node's configuration, for images that are there already too, and by containerd's label.
func TestPinnedImages(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Registry: `pinnedImages: ["*/node/*", pinned.example/short]`}})
	for _, name := range []string{"node/agent:v1", "app/web:v1", "app/labelled:v1"} {
		n.PushImage(t, name, smallImage(name))
		pulled(t, n, n.Registry.Ref(name))
	}
	img, err := labimage.Build(smallImage("imported"))
	if err != nil {
		t.Fatal(err)
	}
	importImage(t, n, "pinned.example/short:latest", img)
	ctr(t, n, "images", "label", n.Registry.Ref("app/labelled:v1"), "io.cri-containerd.pinned=pinned")
	for ref, want := range map[string]bool{
		n.Registry.Ref("node/agent:v1"): true, n.Registry.Ref("app/web:v1"): false,
		n.Registry.Ref("app/labelled:v1"): true, "pinned.example/short": true,
	} {
		got := imageStatus(t, n, ref)
		if got.GetPinned() != want || listed(t, n, "")[got.GetId()].GetPinned() != want {
			t.Errorf("%s is pinned in the status: %t, in the list: %t; want %t", ref, got.GetPinned(), listed(t, n, "")[got.GetId()].GetPinned(), want)
		}
	}
	ctr(t, n, "images", "label", n.Registry.Ref("app/labelled:v1"), "io.cri-containerd.pinned=")
	if imageStatus(t, n, n.Registry.Ref("app/labelled:v1")).GetPinned() {
		t.Error("an image is pinned whose label has gone")
	}
	// Who asks for its removal by name gets it: pinned is for the garbage collector, which asks first.
	removeImage(t, n, n.Registry.Ref("node/agent:v1"))
	if got := imageStatus(t, n, n.Registry.Ref("node/agent:v1")); got != nil {
		t.Errorf("a removed image has the status %v", got)
	}
}

// TestRemoveImageInUse: containers run on, with all of their files, also those that start later; the image is gone for
// everybody else at once, and its layers with the last container.
func TestRemoveImageInUse(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	for name, opts := range map[string][]nodetest.PodOption{"own user namespace": nil, "host users": {nodetest.HostUsers}} {
		t.Run(name, func(t *testing.T) {
			n.PushImage(t, "used/image:v1", labimage.Catalogue(n.Box())[labimage.Demo])
			ref := n.Registry.Ref("used/image:v1")
			id, err := tryPull(t.Context(), n, ref, nil)
			if err != nil {
				t.Fatal(err)
			}
			pod := n.RunPod(t, opts...)
			running, created := pod.Run(t, ref), pod.Create(t, ref)
			removeImage(t, n, ref)
			if got := listed(t, n, "")[id]; got != nil {
				t.Errorf("the list has %v", got)
			}
			_, err = pod.TryCreate(t.Context(), pod.ContainerConfig(ref))
			wantError(t, err, codes.NotFound, ref)
			if blobs := slices.DeleteFunc(stored(t, n), func(thing string) bool { return !strings.HasPrefix(thing, "blob ") }); len(blobs) != 0 {
				t.Errorf("blobs are left that nothing but the image needed: %v", blobs)
			}
			collectGarbage(t, n)
			created.Start(t)
			for _, c := range []*nodetest.Container{running, created} {
				if got := c.Exec(t, "cat", "/data/added"); got != "by the last layer" {
					t.Errorf("a file of the image holds %q", got)
				}
				status := c.Status(t)
				if status.ImageId != id || status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
					t.Errorf("status is %v, want it running image %s", status, id)
				}
			}
			running.Remove(t)
			collectGarbage(t, n)
			if got := created.Exec(t, "cat", "/data/added"); got != "by the last layer" {
				t.Errorf("after another container went a file of the image holds %q", got)
			}
			pod.Remove(t)
			eventually(t, "no snapshot left after the last container", func() bool { return len(stored(t, n)) == 0 })
		})
	}
}
