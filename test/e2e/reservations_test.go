package e2e

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// reservation makes a pod join one, as a pod's author does.
func reservation(name string) nodetest.PodOption {
	return nodetest.Annotation(sandbox.AnnotationReservation, name)
}

// reservingNode has a pool of three ranges, of which the first is reserved as team-a, and a handler share whose pods may
// join it.
func reservingNode(t *testing.T) (n *nodetest.Node, shared labnode.Extent) {
	t.Helper()
	n = ownNode(t, labnode.Options{PoolRanges: 3, Daemon: labnode.DaemonOptions{
		Quarantine: "0s", Handlers: "  share: {runtime: io.containerd.runc.v2, binaryName: runc, reservations: [team-*]}",
	}})
	shared = labnode.Extent{Start: n.Pool().Start, Length: 65536}
	wantPool(t, n, "reserve", "team-a", extentText(shared))
	return n, shared
}

func extentText(e labnode.Extent) string { return fmt.Sprintf("%d:%d", e.Start, e.Length) }

// TestReservationIsSharedByThePodsThatNameIt and by no others, however full the pool is.
func TestReservationIsSharedByThePodsThatNameIt(t *testing.T) {
	t.Parallel()
	n, shared := reservingNode(t)
	image, share := n.Image(t, labimage.Demo), nodetest.Handler("share")
	mine := nodetest.Mapping(n.Kubelet().Start)
	pods := []*nodetest.Pod{
		n.RunPod(t, share, reservation("team-a")),
		n.RunPod(t, share, reservation("team-a"), mine), // kubelet sends a mapping with every pod
		n.RunPod(t, share, reservation("team-a"), nodetest.HostNetwork, askForUsers),
	}
	for i, pod := range pods {
		if got := pod.IDs(t); got != shared {
			t.Fatalf("pod %d has %+v, want the reserved %+v", i, got, shared)
		}
		c := pod.Run(t, image)
		if got, want := fields(c.Exec(t, "cat", "/proc/self/uid_map")), fmt.Sprintf("0 %d 65536", shared.Start); got != want {
			t.Errorf("pod %d: uid_map is %q, want %q", i, got, want)
		}
		c.Exec(t, "touch", "/made")
		if got := ownerOf(t, c.HostPath(t, "/made")); got != (owner{UID: shared.Start, GID: shared.Start}) {
			t.Errorf("pod %d: what its root makes belongs to %+v on the host, want %d", i, got, shared.Start)
		}
	}
	// kubelet goes on sending its mapping with containers; another one is not the pod's.
	_, err := pods[1].TryCreate(t.Context(), pods[1].ContainerConfig(image, func(c *runtimeapi.ContainerConfig) {
		ids := []*runtimeapi.IDMapping{idMapping(0, shared.Start, 65536)}
		c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{
			UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids},
		}
	}))
	wantError(t, err, codes.InvalidArgument, "user namespace maps")
	// The mapping that was not used is free.
	if got := n.RunPod(t, mine).Range(t); got != n.Kubelet().Start {
		t.Errorf("a pod that claims the mapping sent beside the reservation has the range %d, want %d", got, n.Kubelet().Start)
	}

	if got := n.RunPod(t, nodetest.Mapping(shared.Start)).Range(t); shared.Contains(got) {
		t.Errorf("a pod that claims the reserved range without naming it got it: %d", got)
	}
	n.RunPod(t, share)
	if _, err := n.TryRunPod(t, n.PodRequest(t)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("with all ranges but the reserved one in use: %v, want ResourceExhausted", err)
	}
	crash(t, n)
	n.RunPod(t, share, reservation("team-a")).Run(t, image)
}

// askForUsers asks for a user namespace, after an option that does not.
func askForUsers(req *runtimeapi.RunPodSandboxRequest) {
	podNamespaces(req).UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}
}

func TestReservationThatAPodMayNotJoin(t *testing.T) {
	t.Parallel()
	n, _ := reservingNode(t)
	wantPool(t, n, "reserve", "other", extentText(labnode.Extent{Start: n.Pool().Start + 65536, Length: 65536}))
	wantPool(t, n, "reserve", "team-odd", extentText(labnode.Extent{Start: n.Pool().Start + 2*65536 + 5, Length: 65536}))
	share := nodetest.Handler("share")
	for name, tc := range map[string]struct {
		code codes.Code
		says string
		opts []nodetest.PodOption
	}{
		"handler that allows none":     {codes.FailedPrecondition, `runtime handler "runc"`, []nodetest.PodOption{reservation("team-a")}},
		"one of others":                {codes.FailedPrecondition, `"other"`, []nodetest.PodOption{share, reservation("other")}},
		"one that nobody made":         {codes.FailedPrecondition, `"team-b"`, []nodetest.PodOption{share, reservation("team-b")}},
		"ids that no pod can be given": {codes.FailedPrecondition, "team-odd", []nodetest.PodOption{share, reservation("team-odd")}},
		"no name":                      {codes.InvalidArgument, "empty", []nodetest.PodOption{share, reservation("")}},
		"a pod with the host's users":  {codes.InvalidArgument, "host's user namespace", []nodetest.PodOption{share, reservation("team-a"), nodetest.HostUsers}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.TryRunPod(t, n.PodRequest(t, tc.opts...))
			wantError(t, err, tc.code, tc.says)
		})
	}
}

// TestReservationIsGivenUpWhenNobodyUsesIt: not before its last pod is gone, and its ids are not another pod's before the
// last process is.
func TestReservationIsGivenUpWhenNobodyUsesIt(t *testing.T) {
	t.Parallel()
	n, shared := reservingNode(t)
	share := []nodetest.PodOption{nodetest.Handler("share"), reservation("team-a")}
	first, second := n.RunPod(t, share...), n.RunPod(t, share...)
	wantReserved := func(when string, want float64) {
		t.Helper()
		if got := metric(t, n, `userns_shim_idpool_ranges{segment="pool",state="reserved"}`); got != want {
			t.Errorf("%s: %g ranges are reserved, want %g", when, got, want)
		}
	}
	refusedPool(t, n, 1, "2 sandboxes", "release", "team-a")
	first.Remove(t)
	refusedPool(t, n, 1, "1 sandboxes", "release", "team-a")
	wantReserved("with a pod", 1)
	name := second.Request.Config.Metadata.Name
	if got := fields(wantPool(t, n, "list")); !strings.Contains(got, extentText(shared)+" reserved pool reserved as team-a, used by e2e/"+name) {
		t.Errorf("list prints %q, want the reservation and the pod %s", got, name)
	}
	second.Remove(t)
	wantReserved("without pods", 1)

	end := surviving(t, exec.Command("setpriv", "--reuid", strconv.FormatUint(uint64(shared.Start)+5, 10), "--clear-groups", "sleep", "100"))
	wantPool(t, n, "release", "team-a")
	_, err := n.TryRunPod(t, n.PodRequest(t, share...))
	wantError(t, err, codes.FailedPrecondition, "team-a")
	n.RunPod(t)
	n.RunPod(t)
	if _, err := n.TryRunPod(t, n.PodRequest(t)); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "1 ranges with traces") {
		t.Errorf("while a process has an id of it: %v, want ResourceExhausted that says so", err)
	}
	wantReserved("after the release", 0)
	end()
	if got := n.RunPod(t).IDs(t); got != shared {
		t.Errorf("after its end a pod has %+v, want %+v", got, shared)
	}
}
