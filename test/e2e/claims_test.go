package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// claimNode is a node with a policy for mappings that cannot be claimed. Ids of the lab are left over that are in
// neither segment.
type claimNode struct {
	*nodetest.Node
	policy string
}

// bothPolicies runs a test on a node of each policy.
func bothPolicies(t *testing.T, opts labnode.DaemonOptions, test func(t *testing.T, n claimNode)) {
	t.Helper()
	for _, policy := range []string{"remap", "reject"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			opts := opts
			opts.OnConflict = policy
			test(t, claimNode{ownNode(t, labnode.Options{PoolRanges: 24, KubeletRanges: 24, Daemon: opts}), policy})
		})
	}
}

// slot is the i-th range of an extent.
func slot(e labnode.Extent, i int) labnode.Extent {
	return labnode.Extent{Start: e.Start + uint32(i)*65536, Length: 65536}
}

// external is the i-th range that is in neither segment.
func (n claimNode) external(i int) labnode.Extent {
	return slot(labnode.Extent{Start: n.Pool().Start + n.Pool().Length}, i)
}

// wantGranted holds that a pod gets what it claims, with a container that works.
func (n claimNode) wantGranted(t *testing.T, want labnode.Extent, opts ...nodetest.PodOption) *nodetest.Pod {
	t.Helper()
	pod := n.RunPod(t, append([]nodetest.PodOption{nodetest.MappingOf(want)}, opts...)...)
	if got := pod.IDs(t); got != want {
		t.Errorf("the pod has %+v, want the %+v that it claims", got, want)
	}
	if info := n.PodInfo(t, pod.ID); info.Remapped != "" {
		t.Errorf("the pod is said to be remapped: %s", info.Remapped)
	}
	n.wantContainer(t, pod)
	return pod
}

// wantContainer runs a container as kubelet has it made: with the pod's requested mapping in its configuration and in
// those of its mounts.
func (n claimNode) wantContainer(t *testing.T, pod *nodetest.Pod) {
	t.Helper()
	users, dir := podNamespaces(pod.Request).UsernsOptions, volume(t, n.Node)
	write(t, dir+"/given", "", 1000, 1000)
	c := pod.Run(t, n.Image(t, labimage.Demo), func(c *runtimeapi.ContainerConfig) {
		c.Mounts = append(c.Mounts, &runtimeapi.Mount{
			HostPath: dir, ContainerPath: "/vol", UidMappings: users.GetUids(), GidMappings: users.GetGids(),
		})
	})
	ids := pod.IDs(t)
	if got, want := fields(c.Exec(t, "cat", "/proc/self/uid_map")), fmt.Sprintf("0 %d %d", ids.Start, ids.Length); got != want {
		t.Errorf("uid_map is %q, want %q", got, want)
	}
	inside := 1000
	if ids.Length <= 1000 {
		inside = overflow
	}
	if got, want := c.Exec(t, "stat", "-c", "%u:%g", "/vol/given"), fmt.Sprintf("%d:%d", inside, inside); got != want {
		t.Errorf("a file of the volume belongs to %s inside, want %s", got, want)
	}
	c.Exec(t, "touch", "/made", "/vol/made")
	if got := ownerOf(t, c.HostPath(t, "/made")); got != (owner{UID: ids.Start, GID: ids.Start}) {
		t.Errorf("what the pod's root makes belongs to %+v on the host, want %d", got, ids.Start)
	}
	if got := ownerOf(t, dir+"/made"); got != (owner{}) {
		t.Errorf("what the pod's root makes in the volume belongs to %+v on the host, want 0:0", got)
	}
}

// wantConflict holds what becomes of a claim that cannot be granted: with is the label of the metric, says are parts of
// the reason, which name who is in the way.
func (n claimNode) wantConflict(t *testing.T, claim labnode.Extent, with string, says ...string) {
	t.Helper()
	series := fmt.Sprintf("userns_shim_idpool_conflicts_total{with=%q}", with)
	counted, logged := metric(t, n.Node, series), len(n.log(t))
	req := n.PodRequest(t, nodetest.MappingOf(claim))
	pod, err := n.TryRunPod(t, req)
	if got := metric(t, n.Node, series); got != counted+1 {
		t.Errorf("%s is %g, and was %g before: want one more", series, got, counted)
	}
	if n.policy == "reject" {
		wantError(t, err, codes.FailedPrecondition, append(says, extentText(claim))...)
		return
	}
	if err != nil {
		t.Fatalf("RunPodSandbox: %v", err)
	}
	ids, length := pod.IDs(t), (claim.Length+65535)/65536*65536
	if !n.Pool().Contains(ids.Start) || ids.Length != length {
		t.Errorf("the pod has %+v, want %d ids of the pool", ids, length)
	}
	n.wantContainer(t, pod)
	info := n.PodInfo(t, pod.ID)
	if info.RequestedRange != claim || info.Range != ids {
		t.Errorf("the verbose status has the requested range %+v and the range %+v, want %+v and %+v", info.RequestedRange, info.Range, claim, ids)
	}
	log := n.log(t)[logged:]
	line := log[max(0, strings.Index(log, "Pod remapped")):]
	line, _, _ = strings.Cut(line, "\n")
	for _, part := range append(says, extentText(claim)) {
		if !strings.Contains(info.Remapped, part) {
			t.Errorf("the verbose status gives the reason %q, which does not name %q", info.Remapped, part)
		}
		if !strings.Contains(strings.ReplaceAll(line, `\"`, `"`), part) {
			t.Errorf("the log says %q, which does not name %q", line, part)
		}
	}
	// The next attempt is the same pod, and kubelet goes on sending what it has drawn.
	again := n.PodRequest(t, nodetest.MappingOf(claim), nodetest.SamePod(req), attempt(1))
	next, err := n.TryRunPod(t, again)
	if err != nil {
		t.Fatalf("RunPodSandbox of the next attempt: %v", err)
	}
	if got := next.IDs(t); got != ids {
		t.Errorf("the next attempt has %+v, the first one %+v", got, ids)
	}
}

// log is what the daemon has logged.
func (n claimNode) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(n.Daemon.Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// attempt is kubelet's count of a pod's sandboxes.
func attempt(n uint32) nodetest.PodOption {
	return func(req *runtimeapi.RunPodSandboxRequest) { req.Config.Metadata.Attempt = n }
}

// TestClaimOfAFreeRangeIsGranted wherever it lies.
func TestClaimOfAFreeRangeIsGranted(t *testing.T) {
	t.Parallel()
	bothPolicies(t, labnode.DaemonOptions{}, func(t *testing.T, n claimNode) {
		for name, want := range map[string]struct {
			ids            labnode.Extent
			segment, state string // as the metric has it
			ranges         float64
		}{
			"kubelet's":       {slot(n.Kubelet(), 3), "kubelet", "allocated", 1},
			"idsPerPod":       {labnode.Extent{Start: slot(n.Kubelet(), 8).Start, Length: 4 * 65536}, "kubelet", "allocated", 4},
			"the pool's own":  {slot(n.Pool(), 7), "pool", "allocated", 1},
			"in no segment":   {n.external(2), "external", "external", 1},
			"in two segments": {labnode.Extent{Start: slot(n.Kubelet(), 23).Start, Length: 2 * 65536}, "pool", "allocated", 1},
		} {
			t.Run(name, func(t *testing.T) {
				series := fmt.Sprintf(`userns_shim_idpool_ranges{segment=%q,state=%q}`, want.segment, want.state)
				before, claims := metric(t, n.Node, series), metric(t, n.Node, `userns_shim_idpool_allocations_total{source="claim"}`)
				pod := n.wantGranted(t, want.ids)
				if got := metric(t, n.Node, series); got != before+want.ranges {
					t.Errorf("%s is %g, and was %g before: want %g more", series, got, before, want.ranges)
				}
				if got := metric(t, n.Node, `userns_shim_idpool_allocations_total{source="claim"}`); got != claims+1 {
					t.Errorf("%g claims are counted, and %g before: want one more", got, claims)
				}
				pod.Remove(t)
			})
		}
	})
}

// TestClaimThatCannotBeGranted goes through all that can be in the way, apart from quarantine.
func TestClaimThatCannotBeGranted(t *testing.T) {
	t.Parallel()
	bothPolicies(t, labnode.DaemonOptions{}, func(t *testing.T, n claimNode) {
		wide := labnode.Extent{Start: slot(n.Kubelet(), 4).Start, Length: 4 * 65536}
		holder := n.wantGranted(t, wide)
		names := []string{holder.ID, holder.Request.Config.Metadata.Uid, extentText(wide)}
		wantPool(t, n.Node, "reserve", "backup-agent", extentText(slot(n.Kubelet(), 20)))
		for name, tc := range map[string]struct {
			claim labnode.Extent
			with  string
			says  []string
		}{
			"of a live pod":                {wide, "pod", names},
			"inside of a live pod's":       {slot(wide, 2), "pod", names},
			"over the end of a live pod's": {labnode.Extent{Start: slot(wide, 3).Start, Length: 2 * 65536}, "pod", names},
			"around a live pod's":          {labnode.Extent{Start: slot(n.Kubelet(), 2).Start, Length: 8 * 65536}, "pod", names},
			"of a reservation":             {slot(n.Kubelet(), 20), "reservation", []string{`"backup-agent"`}},
			"of the host's ids":            {labnode.Extent{Start: 0, Length: 65536}, "host", []string{"0:65536 is the host's"}},
			"that begins with the host's":  {labnode.Extent{Start: 0, Length: 131072}, "host", []string{"0:65536 is the host's"}},
			"that ends the host's":         {labnode.Extent{Start: 65535, Length: 65536}, "host", []string{"0:65536 is the host's"}},
			"of systemd's":                 {labnode.Extent{Start: 0x7FFE0000, Length: 65536}, "host", []string{"2147352576:65536 is systemd's"}},
		} {
			t.Run(name, func(t *testing.T) { n.wantConflict(t, tc.claim, tc.with, tc.says...) })
		}
		if got := holder.IDs(t); got != wide {
			t.Errorf("the holder has %+v afterwards, want its %+v", got, wide)
		}
	})
}

// TestTerminalSlotOfKubelet: one in 65,535 pods of a kubelet without extents draws the last 65536 ids, which the kernel
// cannot map; on other runtimes such a pod never starts (kubernetes#139916).
func TestTerminalSlotOfKubelet(t *testing.T) {
	t.Parallel()
	bothPolicies(t, labnode.DaemonOptions{}, func(t *testing.T, n claimNode) {
		t.Run("65536 ids", func(t *testing.T) {
			n.wantConflict(t, labnode.Extent{Start: 0xFFFF0000, Length: 65536}, "kernel", "cannot be mapped by the kernel")
		})
		t.Run("idsPerPod", func(t *testing.T) {
			n.wantConflict(t, labnode.Extent{Start: 0xFFFE0000, Length: 131072}, "kernel", "cannot be mapped by the kernel")
		})
	})
}

// TestPodWithoutAMapping: who leaves the ids to the runtime gets them from the pool, and who does not ask has the host's.
func TestPodWithoutAMapping(t *testing.T) {
	t.Parallel()
	bothPolicies(t, labnode.DaemonOptions{}, func(t *testing.T, n claimNode) {
		acquired := metric(t, n.Node, `userns_shim_idpool_allocations_total{source="acquire"}`)
		for name, opt := range map[string]nodetest.PodOption{"unset": nodetest.HostUsers, "mode NODE": modeNode} {
			pod := n.RunPod(t, opt)
			if got := fields(pod.Run(t, n.Image(t, labimage.Demo)).Exec(t, "cat", "/proc/self/uid_map")); got != "0 0 4294967295" {
				t.Errorf("%s: uid_map is %q, want the host's", name, got)
			}
			if mode := pod.Status(t).Linux.Namespaces.Options.UsernsOptions.GetMode(); mode != runtimeapi.NamespaceMode_NODE {
				t.Errorf("%s: status reports mode %s, want NODE", name, mode)
			}
		}
		pod := n.RunPod(t)
		if ids := pod.IDs(t); !n.Pool().Contains(ids.Start) || ids.Length != 65536 {
			t.Errorf("the pod has %+v, want 65536 ids of the pool", ids)
		}
		n.wantContainer(t, pod)
		if got := metric(t, n.Node, `userns_shim_idpool_allocations_total{source="acquire"}`); got != acquired+1 {
			t.Errorf("%g ranges are counted as acquired, and %g before: want one more", got, acquired)
		}
	})
}

// TestPodOfAHandlerWithAlways gets ids unasked, and those that it sends where it sends some.
func TestPodOfAHandlerWithAlways(t *testing.T) {
	t.Parallel()
	opts := labnode.DaemonOptions{Handlers: "  always: {runtime: io.containerd.runc.v2, binaryName: runc, userNamespaces: always}"}
	bothPolicies(t, opts, func(t *testing.T, n claimNode) {
		always := nodetest.Handler("always")
		for name, opt := range map[string]nodetest.PodOption{"unset": nodetest.HostUsers, "mode NODE": modeNode} {
			pod := n.RunPod(t, always, opt)
			if ids := pod.IDs(t); !n.Pool().Contains(ids.Start) || ids.Length != 65536 {
				t.Errorf("%s: the pod has %+v, want 65536 ids of the pool", name, ids)
			}
			n.wantContainer(t, pod)
		}
		n.wantGranted(t, slot(n.Kubelet(), 2), always)
	})
}

func modeNode(req *runtimeapi.RunPodSandboxRequest) {
	podNamespaces(req).UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}
}

// TestNextAttemptClaimsTheSameMapping: kubelet sends one mapping for all sandboxes of a pod, and makes the next while the
// last one exists.
func TestNextAttemptClaimsTheSameMapping(t *testing.T) {
	t.Parallel()
	bothPolicies(t, labnode.DaemonOptions{}, func(t *testing.T, n claimNode) {
		ids := slot(n.Kubelet(), 5)
		first := n.wantGranted(t, ids)
		samePod := nodetest.SamePod(first.Request)
		first.Stop(t)
		second := n.wantGranted(t, ids, samePod, attempt(1))
		third := n.wantGranted(t, ids, samePod, attempt(2)) // the second runs
		first.Remove(t)
		third.Remove(t)
		n.wantConflict(t, ids, "pod", second.ID)
		n.wantContainer(t, second)
		second.Stop(t)
		n.wantConflict(t, ids, "ended", second.ID)
		second.Remove(t)
		n.wantGranted(t, ids)
	})
}
