package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// stopSignal is the client's choice.
func stopSignal(s runtimeapi.Signal) nodetest.ContainerOption {
	return func(c *runtimeapi.ContainerConfig) { c.StopSignal = s }
}

// traps tells which of the signals that the cases below send came.
const traps = `for s in USR1 HUP TERM 37 62; do trap "echo got $s; exit 3" $s; done; echo up; while :; do sleep 0.05; done`

// up waits until a script has said that it is ready.
func up(t *testing.T, c *nodetest.Container) {
	t.Helper()
	c.AwaitLog(t, "come up", func(l nodetest.ContainerLog) bool { return strings.Contains(l.Stdout(), "up") })
}

// TestStopSignals: the client's comes first, then the image's, then SIGTERM; real-time ones as well.
func TestStopSignals(t *testing.T) {
	n := sharedNode(t)
	image := func(stop string) string {
		spec := labimage.Catalogue(n.Box())[labimage.Demo]
		spec.StopSignal = stop
		return n.ImageOf(t, "stop:"+strings.NewReplacer("+", "plus", "-", "minus").Replace(stop), spec)
	}
	plain, usr1 := n.Image(t, labimage.Demo), image("SIGUSR1")
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		for _, tc := range []struct {
			name, image string
			client      runtimeapi.Signal
			trapped     string
			reported    runtimeapi.Signal
		}{
			{"default", plain, 0, "TERM", runtimeapi.Signal_SIGNAL_SIGTERM},
			{"image", usr1, 0, "USR1", runtimeapi.Signal_SIGNAL_SIGUSR1},
			{"image by number", image("10"), 0, "USR1", runtimeapi.Signal_SIGNAL_SIGUSR1},
			{"real-time of the image", image("SIGRTMIN+3"), 0, "37", runtimeapi.Signal_SIGNAL_SIGRTMINPLUS3},
			{"no signal in the image", image("SIGNOTHING"), 0, "TERM", runtimeapi.Signal_SIGNAL_SIGTERM},
			{"client over image", usr1, runtimeapi.Signal_SIGNAL_SIGHUP, "HUP", runtimeapi.Signal_SIGNAL_SIGHUP},
			{"real-time of the client", plain, runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS2, "62", runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS2},
		} {
			c := pod.Run(t, tc.image, nodetest.Shell(traps), stopSignal(tc.client))
			if got := c.Status(t).StopSignal; got != tc.reported {
				t.Errorf("%s: ContainerStatus reports %s, want %s", tc.name, got, tc.reported)
			}
			up(t, c)
			c.Stop(t, 20*time.Second)
			if st, log := c.Status(t), c.Log(t).Stdout(); st.ExitCode != 3 || !strings.Contains(log, "got "+tc.trapped+"\n") {
				t.Errorf("%s: exit code %d, log %q, want 3 after %s", tc.name, st.ExitCode, log, tc.trapped)
			}
		}
	})
}

// stubborn ignores what can be ignored, and counts SIGTERM.
const stubborn = `trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done`

func TestGracePeriods(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		t.Run("none kills at once", func(t *testing.T) {
			c := pod.Run(t, image, nodetest.Shell(stubborn))
			up(t, c)
			took := stopped(t, c, 0)
			if st := c.Status(t); st.ExitCode != 137 || took > 15*time.Second || strings.Contains(c.Log(t).Stdout(), "asked") {
				t.Errorf("exit code %d after %s, log %q", st.ExitCode, took, c.Log(t).Stdout())
			}
		})
		t.Run("a long one ends with the process", func(t *testing.T) {
			c := pod.Run(t, image, nodetest.Shell(`trap 'sleep 1; exit 0' TERM; echo up; while :; do sleep 0.05; done`))
			up(t, c)
			took := stopped(t, c, 50*time.Second)
			if st := c.Status(t); st.ExitCode != 0 || st.Reason != "Completed" || took < time.Second || took > 30*time.Second {
				t.Errorf("exit code %d, %s after %s, want 0 after a second", st.ExitCode, st.Reason, took)
			}
		})
		t.Run("a second stop shortens the first", func(t *testing.T) {
			c := pod.Run(t, image, nodetest.Shell(stubborn))
			up(t, c)
			first := make(chan error, 1)
			began := time.Now()
			go func() { first <- stop(t.Context(), n, c, 50) }()
			c.AwaitLog(t, "been asked", func(l nodetest.ContainerLog) bool { return strings.Contains(l.Stdout(), "asked") })
			if err := stop(t.Context(), n, c, 1); err != nil {
				t.Errorf("second stop: %v", err)
			}
			if err := <-first; err != nil {
				t.Errorf("first stop: %v", err)
			}
			if took := time.Since(began); took > 30*time.Second || c.Status(t).ExitCode != 137 {
				t.Errorf("exit code %d after %s, want 137 after a second", c.Status(t).ExitCode, took)
			}
			if asked := strings.Count(c.Log(t).Stdout(), "asked"); asked != 1 {
				t.Errorf("the stop signal came %d times, want once", asked)
			}
		})
		t.Run("a client that goes away stops nothing more", func(t *testing.T) {
			c := pod.Run(t, image, nodetest.Shell(stubborn))
			up(t, c)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := stop(ctx, n, c, 3); err == nil {
				t.Error("a stop of three seconds succeeds within one")
			}
			time.Sleep(4 * time.Second)
			if st := c.Status(t); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
				t.Errorf("the container is %s after the client went away in its grace period", st.State)
			}
		})
	})
}

// stopped returns how long StopContainer took.
func stopped(t *testing.T, c *nodetest.Container, grace time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	c.Stop(t, grace)
	return time.Since(began)
}

func stop(ctx context.Context, n *nodetest.Node, c *nodetest.Container, seconds int64) error {
	_, err := n.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: c.ID, Timeout: seconds})
	if err != nil {
		return fmt.Errorf("StopContainer: %w", err)
	}
	return nil
}

// TestContainerExitsWhileItIsStopped lets the process end by itself at about the time of SIGTERM and SIGKILL: the stop
// succeeds and the exit code is the process's own or the signal's.
func TestContainerExitsWhileItIsStopped(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	image := n.Image(t, labimage.Demo)
	for i := range 10 {
		c := pod.Run(t, image, nodetest.Shell(fmt.Sprintf("trap '' TERM; sleep 0.%02d; exit 4", i)))
		if err := stop(t.Context(), n, c, int64(i%2)); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
		if st := c.Status(t); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 4 && st.ExitCode != 137 {
			t.Errorf("round %d: the container is %s with code %d", i, st.State, st.ExitCode)
		}
		c.Remove(t)
	}
}
