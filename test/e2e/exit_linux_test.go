package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// wantEnd holds exit code, reason and order of times of a container that has ended.
func wantEnd(t *testing.T, what string, c *nodetest.Container, code int32, reason string) {
	t.Helper()
	c.Wait(t)
	st := c.Status(t)
	if st.ExitCode != code || st.Reason != reason {
		t.Errorf("%s: exit code %d, reason %s, want %d, %s (%s)", what, st.ExitCode, st.Reason, code, reason, st.Message)
	}
	if st.CreatedAt == 0 || st.CreatedAt > st.StartedAt || st.StartedAt > st.FinishedAt {
		t.Errorf("%s: created %d, started %d, finished %d", what, st.CreatedAt, st.StartedAt, st.FinishedAt)
	}
}

func TestExitCodesAndReasons(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		wantEnd(t, "true", pod.Run(t, image, nodetest.Command("true")), 0, "Completed")
		wantEnd(t, "false", pod.Run(t, image, nodetest.Command("false")), 1, "Error")
		wantEnd(t, "exit 143", pod.Run(t, image, nodetest.Shell("exit 143")), 143, "Error")
		killed := pod.Run(t, image, nodetest.Command("sleep", "1000"))
		if err := unix.Kill(killed.PID(t), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		wantEnd(t, "SIGKILL from the host", killed, 137, "Error")
		// In a shared PID namespace a container's process is no init, which a signal that it does not handle does not end.
		shared := n.RunPod(t, append(opts, shareProcesses)...)
		asked := shared.Run(t, image, nodetest.Command("sleep", "1000"))
		if err := stop(t.Context(), n, asked, 30); err != nil {
			t.Error(err)
		}
		wantEnd(t, "SIGTERM", asked, 143, "Error")
		crashed := shared.Run(t, image, nodetest.Command("sleep", "1000"))
		if err := unix.Kill(crashed.PID(t), unix.SIGSEGV); err != nil {
			t.Fatal(err)
		}
		wantEnd(t, "SIGSEGV from the host", crashed, 139, "Error")
	})
}

// TestOOMKilledChild: as on containerd the reason says so even where the container's own process goes on and
// ends well.
func TestOOMKilledChild(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		// One process alone takes memory. With a pipe, who writes to it would go on asking, and the shell could be next.
		c := n.RunPod(t, opts...).Run(t, image, nodetest.Shell("dd if=/dev/zero of=/dev/null bs=100000000 count=1; exit 0"),
			limits(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 32 << 20}))
		wantEnd(t, "a child without memory", c, 0, "OOMKilled")
	})
}

// TestContainersThatCannotStart have exit code 128 and the message of the error; what the runtime refuses is told from
// what the node cannot do.
func TestContainersThatCannotStart(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		blocked := pod.Create(t, image)
		// The log cannot be opened: a directory has its name.
		if err := os.MkdirAll(blocked.LogPath(), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			c             *nodetest.Container
			reason, names string
		}{
			{pod.Create(t, image, nodetest.Command("/no/such/program")), "ContainerCannotRun", "/no/such/program"},
			{pod.Create(t, image, nodetest.Command("/etc/passwd")), "ContainerCannotRun", "permission denied"},
			{blocked, "StartError", filepath.Base(blocked.LogPath())},
		} {
			err := tc.c.TryStart(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.names) {
				t.Errorf("%s: StartContainer says %v, want %q in it", tc.reason, err, tc.names)
			}
			st := tc.c.Status(t)
			if st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 128 || st.Reason != tc.reason || !strings.Contains(st.Message, tc.names) {
				t.Errorf("the container is %s with code %d, reason %s, message %q", st.State, st.ExitCode, st.Reason, st.Message)
			}
			wantError(t, tc.c.TryStart(t.Context()), codes.FailedPrecondition, tc.c.ID)
			tc.c.Stop(t, 0)
			tc.c.Remove(t)
		}
	})
}

// TestAttemptsOfAContainer: as kubelet restarts one, with the old beside the new.
func TestAttemptsOfAContainer(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		attempt := func(number uint32) nodetest.ContainerOption {
			return func(c *runtimeapi.ContainerConfig) {
				c.Metadata = &runtimeapi.ContainerMetadata{Name: "worker", Attempt: number}
				c.LogPath = "worker/" + string(rune('0'+number)) + ".log"
			}
		}
		if err := os.MkdirAll(filepath.Join(pod.Request.Config.LogDirectory, "worker"), 0o755); err != nil {
			t.Fatal(err)
		}
		var created int64
		for number := range uint32(3) {
			c := pod.Run(t, image, nodetest.Shell("echo this is $0; exit 1"), attempt(number))
			wantEnd(t, "an attempt", c, 1, "Error")
			st := c.Status(t)
			if st.Metadata.Attempt != number || st.CreatedAt <= created || !strings.HasSuffix(st.LogPath, c.Config.LogPath) {
				t.Errorf("attempt %d is %v", number, st)
			}
			created = st.CreatedAt
			if !strings.Contains(c.Log(t).Stdout(), "this is") {
				t.Errorf("the log of attempt %d is %q", number, c.Log(t))
			}
		}
		// Of a container that has ended the name is taken until it is removed.
		_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image, attempt(1)))
		wantError(t, err, codes.AlreadyExists, "worker")
	})
}
