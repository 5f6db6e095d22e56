package e2e

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

func TestExhaustionOfAPoolOfTwoRanges(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 2})
	image := n.Image(t, labimage.Demo)
	first, second := n.RunPod(t), n.RunPod(t)
	taken := first.Range(t)
	if taken == second.Range(t) {
		t.Fatalf("two pods have the range %d", taken)
	}
	_, err := n.TryRunPod(t, n.PodRequest(t))
	if got := status.Code(err); got != codes.ResourceExhausted {
		t.Errorf("the third pod gives %v, want ResourceExhausted", err)
	}
	n.RunPod(t, nodetest.HostUsers) // needs no range
	n.RunPod(t, nodetest.Mapping(n.Kubelet().Start))

	first.Remove(t)
	third := n.RunPod(t)
	if got := third.Range(t); got != taken {
		t.Errorf("the pod after a removal has the range %d, want the %d that was freed", got, taken)
	}
	third.Run(t, image).Exec(t, "true")
}

// TestMappingOfALivePodIsRemapped is the default policy: kubelet's claim gives way, loudly.
func TestMappingOfALivePodIsRemapped(t *testing.T) {
	n := sharedNode(t)
	start := n.Kubelet().Start + 5*65536
	first := n.RunPod(t, nodetest.Mapping(start))
	second := n.RunPod(t, nodetest.Mapping(start))
	if got := second.Range(t); got == start || !n.Pool().Contains(got) {
		t.Errorf("a second pod that claims %d has the range %d, want one of the pool", start, got)
	}
	if got := first.Range(t); got != start {
		t.Errorf("the first pod has the range %d, want its %d", got, start)
	}
	// kubelet goes on sending what it asked for with every container.
	wantMaps(t, n, second)
}

func TestMappingOfALivePodIsRejected(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{OnConflict: "reject"}})
	start := n.Kubelet().Start
	n.RunPod(t, nodetest.Mapping(start))
	_, err := n.TryRunPod(t, n.PodRequest(t, nodetest.Mapping(start)))
	if got := status.Code(err); got != codes.FailedPrecondition {
		t.Errorf("a second pod with the same mapping gives %v, want FailedPrecondition", err)
	}
}
