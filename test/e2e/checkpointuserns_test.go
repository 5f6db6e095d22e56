package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	metadata "github.com/checkpoint-restore/checkpointctl/lib"
	"google.golang.org/grpc/codes"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestCheckpointInUserNamespace holds that a container of a pod with a user namespace is written down
// with the owners that it sees, and that it runs on where it cannot be.
func TestCheckpointInUserNamespace(t *testing.T) {
	testkit.RequireCRIU(t)
	n := sharedNode(t)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Shell("touch /mine; chown 7:8 /mine;"+countsOn))
	awaitNumber(t, c, 3)
	archive, err := checkpointTo(t, n, c, 0)
	awaitNumber(t, c, lastNumber(t, c)+3)
	wantError(t, checkpointPod(t, n, pod, volume(t, n), c), codes.FailedPrecondition, "user namespace", pod.ID)
	if !nodetest.HasSysResource(t) {
		wantError(t, err, codes.FailedPrecondition, "CRIU cannot", "rlimit", c.ID)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := archived(t, archive)
	owners := map[string][2]int{}
	for _, hdr := range diffHeaders(t, filepath.Join(dir, metadata.RootFsDiffTar)) {
		owners[strings.Trim(hdr.Name, "/")] = [2]int{hdr.Uid, hdr.Gid}
	}
	if owners["mine"] != [2]int{7, 8} || owners["last"] != [2]int{0, 0} {
		t.Errorf("owners in the diff are %v, want mine of 7:8 and last of 0:0", owners)
	}
	into := n.RunPod(t, nodetest.HostUsers)
	_, err = into.TryCreate(t.Context(), into.ContainerConfig(archive))
	wantError(t, err, codes.InvalidArgument, "namespaces", "user of the pod")
}

// TestRestoreIntoUserNamespaceIsRefused holds that the error says what stands in the way.
func TestRestoreIntoUserNamespaceIsRefused(t *testing.T) {
	testkit.RequireCRIU(t)
	n := sharedNode(t)
	c := n.RunPod(t, nodetest.HostUsers).Run(t, n.Image(t, labimage.Demo))
	archive, err := checkpointTo(t, n, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	into := n.RunPod(t)
	_, err = into.TryCreate(t.Context(), into.ContainerConfig(archive))
	wantError(t, err, codes.FailedPrecondition, "user namespace", "CRIU", into.ID)
}
