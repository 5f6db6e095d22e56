package e2e

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// ctr runs containerd's own client on the node's images.
func ctr(t *testing.T, n *nodetest.Node, args ...string) {
	t.Helper()
	onNode(t, n, append([]string{nodetest.Tools(t).Path("ctr"), "--address", n.Containerd.Address, "--namespace", labnode.Namespace}, args...)...)
}

// importImage imports an image with ctr under a full reference, until the test ends.
func importImage(t *testing.T, n *nodetest.Node, ref string, img v1.Image) {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(archive, tag, img); err != nil {
		t.Fatal(err)
	}
	ctr(t, n, "images", "import", "--local", archive)
	t.Cleanup(func() { removeImage(t, n, ref) })
}

// TestImportedImagesAreSeen: what ctr puts into the namespace is an image like any other.
func TestImportedImagesAreSeen(t *testing.T) {
	n := sharedNode(t)
	spec := labimage.Catalogue(n.Box())[labimage.Demo]
	spec.Labels = map[string]string{"imported": "yes"}
	img, err := labimage.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	const ref = "imported.example/by/ctr:v1"
	importImage(t, n, ref, img)
	got := imageStatus(t, n, ref)
	if want := configDigest(t, spec); got.GetId() != want || !slices.Contains(got.GetRepoTags(), ref) {
		t.Fatalf("status is %v, want id %s and tag %s", got, want, ref)
	}
	n.RunPod(t).Run(t, ref).Exec(t, "true")
}
