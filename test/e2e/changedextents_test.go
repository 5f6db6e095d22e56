package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// rangesOutside is how many ranges the metrics have that are in use in no segment.
const rangesOutside = `userns_shim_idpool_ranges{segment="external",state="external"}`

// TestPodsOutliveTheirExtents: userns-shim is restarted with other extents while pods run. They run on with what they have,
// which is told, and which is nobody's to give once they are gone. Kubelet's extents were the node's ranges 0 to 15 and the
// pool's 16 and 17; then they are 30 to 33, and 15, 40 and 41.
func TestPodsOutliveTheirExtents(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 2, KubeletRanges: 16, Daemon: labnode.DaemonOptions{Quarantine: "0s"}})
	image := n.Image(t, labimage.Demo)
	wide := labnode.Extent{Start: slot(n.IDs, 14).Start, Length: 131072} // half of it will be the pool's
	old := map[string]*nodetest.Pod{
		"acquired": n.RunPod(t), "claimed": n.RunPod(t, nodetest.Mapping(slot(n.IDs, 3).Start)), "wide": n.RunPod(t, nodetest.MappingOf(wide)),
	}
	containers, had := map[string]*nodetest.Container{}, map[string]labnode.Extent{}
	for name, pod := range old {
		containers[name], had[name] = pod.Run(t, image), pod.IDs(t)
	}
	fresh := labnode.Extent{Start: slot(n.IDs, 40).Start, Length: 131072}
	kubelets := labnode.Extent{Start: slot(n.IDs, 30).Start, Length: 4 * 65536}
	restartWith(t, n, "kubeletExtents: "+extentList(kubelets), "extents: "+extentList(slot(n.IDs, 15), fresh))
	wantExtents(t, n, "kubelet", admin.Extent(kubelets))
	wantExtents(t, n, "pool", admin.Extent(slot(n.IDs, 15)), admin.Extent(fresh))

	for name, pod := range old {
		if got := pod.IDs(t); got != had[name] {
			t.Errorf("the %s pod has %+v after the restart, and had %+v", name, got, had[name])
		}
		for _, c := range []*nodetest.Container{containers[name], pod.Run(t, image)} {
			if got, want := fields(c.Exec(t, "cat", "/proc/self/uid_map")), fmt.Sprintf("0 %d %d", had[name].Start, had[name].Length); got != want {
				t.Errorf("the %s pod's uid_map is %q, want %q", name, got, want)
			}
		}
	}
	wantToldOutside(t, n, had)
	wantCirculation(t, n, fresh, kubelets)

	// Further attempts of the old pods keep what those have, also kubelet's.
	for _, name := range []string{"acquired", "claimed"} {
		req := old[name].Request
		again := n.PodRequest(t, attempt(1), nodetest.SamePod(req), func(c *runtimeapi.RunPodSandboxRequest) {
			podNamespaces(c).UsernsOptions = podNamespaces(req).UsernsOptions
		})
		pod, err := n.TryRunPod(t, again)
		if err != nil {
			t.Fatal(err)
		}
		if got := pod.IDs(t); got != had[name] {
			t.Errorf("the next attempt of the %s pod has %+v, want %+v", name, got, had[name])
		}
		old[name].Remove(t)
		pod.Remove(t)
	}
	// What is gone leaves the ledger; only what lies in the new extents comes back.
	old["wide"].Remove(t)
	if got := n.RunPod(t).IDs(t); got != slot(n.IDs, 15) {
		t.Errorf("after the wide pod another one has %+v, want %+v", got, slot(n.IDs, 15))
	}
	wantExhausted(t, n)
	eventually(t, "the old ranges leave the ledger", func() bool {
		list := wantPool(t, n, "list")
		return metric(t, n, rangesOutside) == 0 && !strings.Contains(list, extentText(had["acquired"])) && !strings.Contains(list, extentText(had["claimed"]))
	})
	wantExhausted(t, n)
}

// wantToldOutside holds that ranges in no extent are in the log, the list, the counts and the metrics.
func wantToldOutside(t *testing.T, n *nodetest.Node, ranges map[string]labnode.Extent) {
	t.Helper()
	log, list := claimNode{Node: n}.log(t), fields(wantPool(t, n, "list"))
	for name, ids := range ranges {
		if row := extentText(ids) + " allocated external"; !strings.Contains(list, row) {
			t.Errorf("pool list has no row %q of the %s pod: %s", row, name, list)
		}
	}
	if found := regexp.MustCompile(`kind="outside-extents" first="[0-9:]+" pod="[A-Z0-9]+" count=3\b`); !found.MatchString(log) {
		t.Errorf("the log does not match %s", found)
	}
	if got := metric(t, n, rangesOutside); got != 3 { // of the wide one the first half
		t.Errorf("the metrics have %g ranges in no segment, want 3", got)
	}
	if s := poolSegment(t, n, "external"); s.Allocated != 3 {
		t.Errorf("pool status has %d ranges in no segment, want 3", s.Allocated)
	}
	if s := poolSegment(t, n, "pool"); s.Allocated != 1 || s.Free != 2 {
		t.Errorf("the pool has %d ranges allocated and %d free, want the second half of the wide one's and 2", s.Allocated, s.Free)
	}
}

// wantCirculation holds that the new extents are in use, and nothing of the old ones. Two new pods remain.
func wantCirculation(t *testing.T, n *nodetest.Node, pool, kubelets labnode.Extent) {
	t.Helper()
	for range 2 {
		if got := n.RunPod(t).IDs(t); !pool.Contains(got.Start) {
			t.Errorf("a new pod has %+v, want a range of %+v", got, pool)
		}
	}
	wantExhausted(t, n)
	if got := n.RunPod(t, nodetest.Mapping(slot(kubelets, 1).Start)).IDs(t); got != slot(kubelets, 1) {
		t.Errorf("a pod that claims one of kubelet's new ranges has %+v, want %+v", got, slot(kubelets, 1))
	}
	// A kubelet that was not restarted yet.
	late := n.RunPod(t, nodetest.Mapping(slot(n.IDs, 5).Start))
	if got := late.IDs(t); got != slot(n.IDs, 5) {
		t.Errorf("a pod that claims one of kubelet's old ranges has %+v, want %+v", got, slot(n.IDs, 5))
	}
	late.Remove(t)
}

func wantExhausted(t *testing.T, n *nodetest.Node) {
	t.Helper()
	if pod, err := n.TryRunPod(t, n.PodRequest(t)); status.Code(err) != codes.ResourceExhausted {
		if err == nil {
			t.Fatalf("a pod has %+v, want ResourceExhausted", pod.IDs(t))
		}
		t.Errorf("%v, want ResourceExhausted", err)
	}
}
