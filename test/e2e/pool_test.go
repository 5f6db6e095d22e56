package e2e

import (
	"os/exec"
	"strconv"
	"strings"
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

// TestRangeOfASurvivingProcessRests: a range comes back when nothing on the host uses its ids any more, not when
// time is over.
func TestRangeOfASurvivingProcessRests(t *testing.T) {
	t.Parallel()
	for name, survive := range map[string]func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) *exec.Cmd{
		"credentials": func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) *exec.Cmd {
			id := strconv.FormatUint(uint64(pod.Range(t))+77, 10)
			return exec.Command("setpriv", "--reuid", id, "--clear-groups", "sleep", "100")
		},
		"namespace": func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) *exec.Cmd {
			c := pod.Run(t, n.Image(t, labimage.Demo))
			return exec.Command("nsenter", "--user", "--target", strconv.Itoa(c.PID(t)), "--setuid", "0", "--setgid", "0", "sleep", "100")
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := ownNode(t, labnode.Options{PoolRanges: 1, Daemon: labnode.DaemonOptions{Quarantine: "0s"}})
			first := n.RunPod(t)
			taken := first.Range(t)
			end := surviving(t, survive(t, n, first))
			first.Remove(t)
			_, err := n.TryRunPod(t, n.PodRequest(t))
			if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "1 ranges with traces") {
				t.Errorf("while a process of the pod lives: %v, want ResourceExhausted that says so", err)
			}
			end()
			if got := n.RunPod(t).Range(t); got != taken {
				t.Errorf("after its end a pod has the range %d, want %d", got, taken)
			}
		})
	}
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
