package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
)

// TestContainerdHangs stops containerd in its tracks: Status says so, what needs containerd ends by its deadline, what does
// not is answered, and all goes on afterwards.
func TestContainerdHangs(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	c := pod.Run(t, image)
	if err := unix.Kill(n.Containerd.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			if err := unix.Kill(n.Containerd.PID(), unix.SIGCONT); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(resume)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	resp, err := n.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatalf("Status: %v", err)
	}
	for _, condition := range resp.GetStatus().GetConditions() {
		if condition.Type == runtimeapi.RuntimeReady && (condition.Status || condition.Message == "") {
			t.Errorf("the runtime is ready beside a containerd that hangs: %v", condition)
		}
	}
	if st := c.Status(t); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container is %s", st.State)
	}
	for what, call := range map[string]func(context.Context) error{
		"CreateContainer": func(ctx context.Context) error {
			_, err := pod.TryCreate(ctx, pod.ContainerConfig(image))
			return err
		},
		"StopContainer": func(ctx context.Context) error { return stop(ctx, n, c, 1) },
		"ExecSync": func(ctx context.Context) error {
			_, err := c.TryExec(ctx, "true")
			return err
		},
	} {
		short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		began := time.Now()
		err := call(short)
		cancel()
		if code := status.Code(err); code != codes.DeadlineExceeded || time.Since(began) > 10*time.Second {
			t.Errorf("%s: %v after %s, want DeadlineExceeded", what, err, time.Since(began))
		}
	}
	resume()
	awaitReady(t, n)
	c.Exec(t, "true")
	pod.Run(t, image).Exec(t, "true")
	c.Stop(t, 0)
}

// TestRestartBesideAShimThatHangs: a shim that does not answer while userns-shim starts, as on a node that is overloaded,
// is not taken for one that is gone. Its container runs on, is watched, and can be stopped.
func TestRestartBesideAShimThatHangs(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo))
	pid := c.PID(t)
	list := shims(t, n)
	if len(list) != 1 {
		t.Fatalf("one pod has the shims %v", list)
	}
	if err := unix.Kill(list[0].PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := sync.OnceFunc(func() {
		if err := unix.Kill(list[0].PID, unix.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(resume)
	if err := n.Daemon.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, n)
	if st := c.Status(t); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container is %s (%s)", st.State, st.Reason)
	}
	resume()
	if got := c.PID(t); got != pid {
		t.Errorf("the container has the process %d, and had %d", got, pid)
	}
	c.Exec(t, "true")
	c.Stop(t, 0)
	if st := c.Status(t); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 137 {
		t.Errorf("after its stop the container is %s with code %d", st.State, st.ExitCode)
	}
}
