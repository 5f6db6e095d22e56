package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// The kill tests' load: pods side by side, each with containers that come and go. Half of the pods have a user namespace, and
// half of those a shared PID namespace.
const (
	killWorkers  = 4
	killedShim   = 30 // times that userns-shim is killed
	killedEngine = 8  // times that containerd is
)

// TestKillAtAnyTimeLeavesNothing kills userns-shim again and again while pods and containers are created, started and
// removed. Whatever it was doing, all can be removed afterwards, and nothing is left.
func TestKillAtAnyTimeLeavesNothing(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	load := startLoad(t, n)
	for range killedShim {
		load.goOn(t.Context())
		if err := n.Daemon.Kill9(); err != nil {
			t.Fatal(err)
		}
		if err := n.Daemon.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	load.stop(t)
}

// TestKillOfContainerdAtAnyTimeLeavesNothing does the same to containerd.
func TestKillOfContainerdAtAnyTimeLeavesNothing(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	load := startLoad(t, n)
	for range killedEngine {
		load.goOn(t.Context())
		if err := n.Containerd.Kill9(); err != nil {
			t.Fatal(err)
		}
		if err := n.Containerd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	awaitReady(t, n)
	load.stop(t)
}

// load is what goes on while daemons are killed. Any call of it may fail.
type load struct {
	node    *nodetest.Node
	image   string
	end     context.CancelFunc
	workers sync.WaitGroup

	calls   atomic.Int64 // that succeeded
	started atomic.Int64 // containers

	mu   sync.Mutex
	pods []*nodetest.Pod // all that were asked for, with an empty id where no answer came
}

// goOn lets the load get some calls done, a few seconds at most, and then go on for a random moment: however slow the
// machine, kills meet every step.
func (l *load) goOn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for target := l.calls.Load() + rand.Int64N(24); l.calls.Load() < target && ctx.Err() == nil; {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
}

func startLoad(t *testing.T, n *nodetest.Node) *load {
	t.Helper()
	l := &load{node: n, image: n.Image(t, labimage.Demo)}
	ctx, end := context.WithCancel(t.Context())
	l.end = end
	for i := range killWorkers {
		l.workers.Go(func() {
			for ctx.Err() == nil {
				l.pod(ctx, t, i)
			}
		})
	}
	return l
}

// pod is one pod's life.
func (l *load) pod(ctx context.Context, t *testing.T, kind int) {
	var opts []nodetest.PodOption
	if kind%2 == 1 {
		opts = append(opts, nodetest.HostUsers)
	}
	if kind/2 == 1 {
		opts = append(opts, shareProcesses)
	}
	req := l.node.PodRequest(t, opts...)
	if err := os.MkdirAll(req.Config.LogDirectory, 0o755); err != nil {
		t.Error(err)
		return
	}
	pod := l.node.PodOf("", req)
	l.mu.Lock()
	l.pods = append(l.pods, pod)
	l.mu.Unlock()
	// Calls end by themselves when the load does: what userns-shim undoes of one that is cut off comes later.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	resp, err := l.node.Runtime.RunPodSandbox(bounded, req, grpc.WaitForReady(true))
	if err != nil {
		time.Sleep(20 * time.Millisecond)
		return
	}
	l.calls.Add(1)
	pod.ID = resp.PodSandboxId
	for range 3 {
		l.container(bounded, pod)
	}
	if rand.IntN(2) == 0 {
		_, err := l.node.Runtime.RemovePodSandbox(bounded, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.ID})
		l.count(err)
	}
}

func (l *load) container(ctx context.Context, pod *nodetest.Pod) {
	command := [][]string{{"true"}, {"sleep", "1000"}}[rand.IntN(2)]
	c, err := pod.TryCreate(ctx, pod.ContainerConfig(l.image, nodetest.Command(command...)))
	if err != nil {
		return
	}
	l.calls.Add(1)
	err = c.TryStart(ctx)
	if err == nil {
		l.calls.Add(1)
		l.started.Add(1)
	}
	if rand.IntN(2) == 0 {
		_, err := l.node.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID})
		l.count(err)
	}
}

func (l *load) count(err error) {
	if err == nil {
		l.calls.Add(1)
	}
}

// stop ends the load and removes all pods, those whose requests got no answer among them.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.end()
	l.workers.Wait()
	if l.started.Load() < 5 {
		t.Errorf("only %d containers were ever started: this tests too little", l.started.Load())
	}
	t.Logf("%d pods, %d containers started", len(l.pods), l.started.Load())
	var pods []*runtimeapi.PodSandbox
	eventually(t, "recovery is done", func() (ok bool) {
		var err error
		pods, err = l.list(t.Context())
		return err == nil
	})
	for _, pod := range pods {
		if err := l.removePod(t.Context(), pod.Id); err != nil {
			t.Errorf("remove pod %s: %v", pod.Id, err)
		}
	}
	for _, pod := range l.pods {
		pod.RemoveFiles(t)
	}
	l.flushForwarding(t)
	// userns-shim looks for such shims every few seconds.
	eventually(t, "the pods and shims of calls that were cut off have gone", func() bool {
		late, err := l.list(t.Context())
		for _, pod := range late {
			err = errors.Join(err, l.removePod(t.Context(), pod.Id))
		}
		if err != nil {
			t.Fatal(err)
		}
		return len(late) == 0 && len(processes(t, func(p leaks.Process) bool {
			return strings.Contains(p.Cmdline, "containerd-shim") && strings.Contains(p.Cmdline, l.node.Containerd.Address)
		})) == 0
	})
}

func (l *load) list(ctx context.Context) ([]*runtimeapi.PodSandbox, error) {
	resp, err := l.node.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}, grpc.WaitForReady(true))
	return resp.GetItems(), err
}

// flushForwarding removes what nobody can ask the firewall plugin for: it finds a pod's rules by the result of the
// pod's ADD, which libcni keeps only once all plugins have ended. The rules of an ADD that was cut off name an address that
// another pod gets.
func (l *load) flushForwarding(t *testing.T) {
	t.Helper()
	if _, err := l.node.World.Output(exec.Command("iptables", "-F", "CNI-FORWARD")); err != nil {
		t.Error(err)
	}
}

func (l *load) removePod(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := l.node.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	_, err := l.node.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	return err
}
