package e2e

import (
	"context"
	"slices"
	"testing"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestLeakCheckNamesAllThatAPodIs holds that the check at the end of every test looks where pods leave their
// traces: a pod that lives is found in each kind.
func TestLeakCheckNamesAllThatAPodIs(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	pod.Run(t, n.Image(t, labimage.Demo))
	leaveLease(t, n) // a pod's own is gone once its container is made
	found, err := n.Leaks(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{
		"mount", "network namespace", "state file", "cgroup", "process", "interface", "packet filter rule",
		"CNI address", "id range", "CRI sandbox", "CRI container",
		"containerd container", "containerd task", "containerd snapshot", "containerd lease", "fifo",
		"daemon's detached mount", // the idmapped clone of the image's layers
	} {
		if !slices.ContainsFunc(found, func(thing leaks.Thing) bool { return thing.Kind == kind }) {
			t.Errorf("no %s was found among %v", kind, found)
		}
	}
}

// leaveLease makes a lease that lasts until the test ends.
func leaveLease(t *testing.T, n *nodetest.Node) {
	t.Helper()
	const id = "of-the-leak-check"
	client := leasesapi.NewLeasesClient(n.Engine)
	if _, err := client.Create(nodetest.InContainerd(t.Context()), &leasesapi.CreateRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := client.Delete(nodetest.InContainerd(context.Background()), &leasesapi.DeleteRequest{ID: id}); err != nil {
			t.Error(err)
		}
	})
}

func TestMissingHostPathBecomesADirectory(t *testing.T) {
	n := sharedNode(t)
	dir := volume(t, n)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir+"/missing", "/vol"))
	c.Exec(t, "touch", "/vol/made")
	if got := ownerOf(t, dir+"/missing/made"); got != (owner{}) {
		t.Errorf("a file in the volume belongs to %+v on disk, want 0:0", got)
	}
}
