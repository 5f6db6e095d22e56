package engine_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/pkg/image"
)

// TestImagesAreSharedWithCRIPlugin: a node can change from containerd's own CRI plugin and back without pulling
// an image again.
func TestImagesAreSharedWithCRIPlugin(t *testing.T) {
	l := newCRILab(t)
	conn := l.dial()
	defer conn.Close()
	plugin := criapi.NewImageServiceClient(conn)
	ctx := t.Context()

	l.registry.push(t, labimage.Demo)
	l.registry.push(t, labimage.User)
	ours := l.pullPushed(labimage.Demo)
	ref := l.registry.Ref(labimage.User)
	pulled, err := plugin.PullImage(ctx, &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}})
	if err != nil {
		t.Fatal(err)
	}
	theirs := pulled.GetImageRef()

	for _, id := range []string{ours, theirs} {
		mine, err := l.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		other := awaitImage(t, plugin, id)
		if !slices.Equal(mine.RepoTags, other.GetRepoTags()) || !slices.Equal(mine.RepoDigests, other.GetRepoDigests()) ||
			uint64(mine.Size) != other.GetSize() || len(mine.RepoTags) != 1 || len(mine.RepoDigests) != 1 {
			t.Errorf("image %s: the plugin says %v, the engine %+v", id, other, mine)
		}
	}

	if err := l.Remove(ctx, theirs); err != nil {
		t.Fatal(err)
	}
	if _, err := plugin.RemoveImage(ctx, &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: ours}}); err != nil {
		t.Fatal(err)
	}
	if left, err := l.List(ctx); err != nil || len(left) != 0 {
		t.Errorf("images after each removed the other's: %+v, %v", left, err)
	}
	l.wantNothing()
	if _, err := l.Pull(ctx, image.PullRequest{Ref: ref}); err != nil {
		t.Error(err)
	}
}

// awaitImage asks the plugin, which learns of images by containerd's events.
func awaitImage(t *testing.T, plugin criapi.ImageServiceClient, id string) *criapi.Image {
	t.Helper()
	for range 100 {
		resp, err := plugin.ImageStatus(t.Context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: id}})
		if err != nil {
			t.Fatal(err)
		}
		if img := resp.GetImage(); len(img.GetRepoTags()) > 0 && len(img.GetRepoDigests()) > 0 {
			return img
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the plugin does not know image %s", id)
	return nil
}

// newCRILab starts a containerd with its CRI plugin.
func newCRILab(t *testing.T) *lab {
	t.Helper()
	tools := nodetest.Tools(t)
	dir, err := os.MkdirTemp("/tmp", "uslc-")
	if err != nil {
		t.Fatal(err)
	}
	c, err := labnode.StartContainerd(t.Context(), labnode.ContainerdOptions{Tools: tools, Dir: dir, WithCRI: true})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var cerr error
		if c != nil {
			cerr = c.Close(ctx)
		}
		if err := errors.Join(cerr, labnode.RemoveDir(dir)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, containerd: c, registry: newLabRegistry(t)}
	l.Engine = l.newEngine(engineOptions())
	return l
}
