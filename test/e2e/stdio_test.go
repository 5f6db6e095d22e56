package e2e

import (
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestNonRootReopensItsStdio is `echo x > /dev/stderr`: the pipe behind it has to belong to the user.
func TestNonRootReopensItsStdio(t *testing.T) {
	n := sharedNode(t)
	for _, kind := range []struct {
		name string
		opts []nodetest.PodOption
	}{{"with a user namespace", nil}, {"in the host's", []nodetest.PodOption{nodetest.HostUsers}}} {
		t.Run(kind.name, func(t *testing.T) {
			pod := n.RunPod(t, kind.opts...)
			c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.User(1000, 1000),
				nodetest.Shell("echo out > /dev/stdout; echo err > /dev/stderr; exec sleep infinity"))
			log := c.AwaitLog(t, "both lines", func(l nodetest.ContainerLog) bool { return len(l) >= 2 })
			if log.Stdout() != "out\n" || log.Stderr() != "err\n" {
				t.Errorf("stdout is %q and stderr %q", log.Stdout(), log.Stderr())
			}
			resp, err := c.TryExec(t.Context(), "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr")
			if err != nil {
				t.Fatal(err)
			}
			if string(resp.Stdout) != "out\n" || string(resp.Stderr) != "err\n" || resp.ExitCode != 0 {
				t.Errorf("in exec: stdout is %q, stderr %q, exit code %d", resp.Stdout, resp.Stderr, resp.ExitCode)
			}
		})
	}
}

func TestLogSeparatesStreamsAndSplitsLongLines(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo),
		nodetest.Shell("echo one; echo two >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; printf end"))
	if code := c.Wait(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	log := c.AwaitLog(t, "the last line", func(l nodetest.ContainerLog) bool { return strings.HasSuffix(strings.TrimSpace(l.Stdout()), "end") })
	if log.Stderr() != "two\n" {
		t.Errorf("stderr is %q", log.Stderr())
	}
	want := "one\n" + strings.Repeat("x", 40000) + "\nend"
	if got := strings.TrimSuffix(log.Stdout(), "\n"); got != want {
		t.Errorf("stdout has %d bytes, want %d", len(got), len(want))
	}
	partial := 0
	for _, line := range log {
		if line.Partial {
			partial++
		}
	}
	if partial < 2 {
		t.Errorf("a line of 40000 bytes is in %d partial lines, want at least 2", partial)
	}
}

func TestExecSyncReportsExitCodeAndStreams(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo))
	resp, err := c.TryExec(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 42")
	if err != nil {
		t.Fatal(err)
	}
	if string(resp.Stdout) != "out\n" || string(resp.Stderr) != "err\n" || resp.ExitCode != 42 {
		t.Errorf("stdout is %q, stderr %q, exit code %d", resp.Stdout, resp.Stderr, resp.ExitCode)
	}
}

// TestExecSyncCutsItsOutputToOneMessage holds that output of any size is an answer that kubelet can take.
func TestExecSyncCutsItsOutputToOneMessage(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Command("sleep", "1000"))
	resp, err := n.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: c.ID, Cmd: []string{"sh", "-c", "yes | head -c 20000000; echo done >&2"}, Timeout: 60,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Stdout) < 15<<20 || resp.ExitCode != 0 || string(resp.Stderr) != "done\n" {
		t.Errorf("%d bytes of stdout, stderr %q, exit code %d", len(resp.Stdout), resp.Stderr, resp.ExitCode)
	}
}

// TestExecSyncDoesNotWaitForABackgroundChild holds that the answer comes when the command has exited.
func TestExecSyncDoesNotWaitForABackgroundChild(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Command("sleep", "1000"))
	start := time.Now()
	resp, err := n.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: c.ID, Cmd: []string{"sh", "-c", "sleep 100 & echo bg"}, Timeout: 60,
	})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); string(resp.Stdout) != "bg\n" || took > 8*time.Second {
		t.Errorf("stdout %q after %s", resp.Stdout, took)
	}
}
