package e2e

import (
	"context"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// killShim ends the shim of a running container by SIGKILL, as the kernel does when memory is short.
func killShim(t *testing.T, c *nodetest.Container) {
	t.Helper()
	pid := c.PID(t)
	found := processes(t, func(p leaks.Process) bool { return p.PID == pid })
	if len(found) != 1 {
		t.Fatalf("the container's process %d is gone", pid)
	}
	if err := syscall.Kill(found[0].Parent, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestStopAndRemoveInAnyState stops and removes, each twice, what is in every state that a container can be in.
func TestStopAndRemoveInAnyState(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	for name, reach := range map[string]func(t *testing.T, pod *nodetest.Pod) *nodetest.Container{
		"created": func(t *testing.T, pod *nodetest.Pod) *nodetest.Container { return pod.Create(t, image) },
		"running": func(t *testing.T, pod *nodetest.Pod) *nodetest.Container { return pod.Run(t, image) },
		"exited": func(t *testing.T, pod *nodetest.Pod) *nodetest.Container {
			c := pod.Run(t, image, nodetest.Shell("exit 3"))
			c.Wait(t)
			return c
		},
		"could not start": func(t *testing.T, pod *nodetest.Pod) *nodetest.Container {
			c := pod.Create(t, image, nodetest.Command("/no/such/program"))
			if _, err := n.Runtime.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c.ID}); err == nil {
				t.Fatal("a program that does not exist was started")
			}
			return c
		},
		"without its shim": func(t *testing.T, pod *nodetest.Pod) *nodetest.Container {
			c := pod.Run(t, image)
			killShim(t, c)
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
				pod := n.RunPod(t, opts...)
				c := reach(t, pod)
				for range 2 {
					c.Stop(t, 1)
				}
				for range 2 {
					c.Remove(t)
				}
				reach(t, pod) // the pod's removal meets one in this state
				for range 2 {
					pod.Stop(t)
				}
				for range 2 {
					pod.Remove(t)
				}
			})
		})
	}
}

// TestShimThatIsKilled ends its containers: nobody could report their exit any more.
func TestShimThatIsKilled(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		c := pod.Run(t, image)
		pid := c.PID(t)
		killShim(t, c)
		if code := c.Wait(t); code != 137 && code != 255 {
			t.Errorf("a container that lost its shim ended with %d, want 137 or, where nobody saw it, 255", code)
		}
		if left := processes(t, func(p leaks.Process) bool { return p.PID == pid }); len(left) != 0 {
			t.Errorf("its process runs on: %+v", left)
		}
		if got := pod.Status(t).State; got != runtimeapi.PodSandboxState_SANDBOX_READY {
			t.Errorf("the pod is %s, want it ready: it has no process of its own", got)
		}
		pod.Run(t, image).Exec(t, "true")
	})
}

// TestStopRemoveAndExecAtOnce: whoever comes too late gets an error that says so, and nothing is left.
func TestStopRemoveAndExecAtOnce(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		for range 5 {
			id := pod.Run(t, image).ID
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var calls errgroup.Group
			for range 3 {
				calls.Go(func() error {
					_, err := n.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sleep", "1"}, Timeout: 5})
					return tooLate(err)
				})
				calls.Go(func() error {
					_, err := n.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 1})
					return err
				})
				calls.Go(func() error {
					_, err := n.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
					return err
				})
			}
			if err := calls.Wait(); err != nil {
				t.Error(err)
			}
			_, err := n.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
			wantError(t, err, codes.NotFound, id)
		}
	})
}

// tooLate takes the errors of an exec in a container that goes meanwhile for success.
func tooLate(err error) error {
	switch status.Code(err) {
	case codes.NotFound, codes.FailedPrecondition:
		return nil
	}
	return err
}
