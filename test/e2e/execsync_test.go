package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestExecSyncTimeoutKillsTheCommand holds that the command is killed and the answer comes at once, also where
// its children hold its output open. Those live on, as on containerd, until the container ends.
func TestExecSyncTimeoutKillsTheCommand(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := sleeper(t, n, opts...)
		before := takeCensus(t, n)
		for _, script := range []string{"echo $$ > /tmp/pid; exec sleep 7401", "trap '' TERM INT; sleep 7402 & echo $$ > /tmp/pid; sleep 7401"} {
			// On a busy machine the second may be over before the command has come to where it is to be killed.
			for reached := ""; reached == ""; reached = c.Exec(t, "sh", "-c", "cat /tmp/pid || true") {
				c.Exec(t, "sh", "-c", "rm -f /tmp/pid; killall -9 sleep || true")
				start := time.Now()
				_, err := n.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Cmd: []string{"sh", "-c", script}, Timeout: 1})
				wantError(t, err, codes.DeadlineExceeded, "timed out")
				if took := time.Since(start); took < time.Second || took > 5*time.Second {
					t.Errorf("%q: the answer took %s", script, took)
				}
			}
			if got := c.Exec(t, "sh", "-c", "kill -0 $(cat /tmp/pid) 2>&1 || true"); !strings.Contains(got, "No such process") {
				t.Errorf("%q: the command lives on: %s", script, got)
			}
		}
		if count := running(t, n, "sleep 7402"); count != 1 {
			t.Errorf("%d processes of the command's child, want the one that lives on", count)
		}
		c.Exec(t, "killall", "-9", "sleep")
		wantCensus(t, n, before)
	})
}

func TestManyExecSyncsAtOnce(t *testing.T) {
	const calls = 50
	n := sharedNode(t)
	c := sleeper(t, n)
	before := takeCensus(t, n)
	var all sync.WaitGroup
	for i := range calls {
		all.Go(func() {
			resp, err := c.TryExec(t.Context(), "sh", "-c", fmt.Sprintf("echo out %d; echo err %d >&2; exit %d", i, i, i))
			if err != nil {
				t.Error(err)
				return
			}
			if string(resp.Stdout) != fmt.Sprintf("out %d\n", i) || string(resp.Stderr) != fmt.Sprintf("err %d\n", i) || resp.ExitCode != int32(i) {
				t.Errorf("call %d: %q, %q, exit code %d", i, resp.Stdout, resp.Stderr, resp.ExitCode)
			}
		})
	}
	all.Wait()
	wantCensus(t, n, before)
}

func TestExecSyncRefusals(t *testing.T) {
	n := sharedNode(t)
	ask := func(id string, cmd ...string) error {
		_, err := n.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: 10})
		return err
	}
	wantError(t, ask("unknown", "true"), codes.NotFound, "unknown")
	c := n.RunPod(t).Create(t, n.Image(t, labimage.Demo), nodetest.Command("sleep", "100000"))
	wantError(t, ask(c.ID, "true"), codes.FailedPrecondition, "created")
	c.Start(t)
	wantError(t, ask(c.ID), codes.InvalidArgument, "cmd")
	wantError(t, ask(c.ID, "/no/such/command"), codes.FailedPrecondition, "/no/such/command", "no such file")
	c.Stop(t, 0)
	wantError(t, ask(c.ID, "true"), codes.FailedPrecondition, "exited")
}

// TestExecSyncEndsWithItsContainer stops the container under a command that would never end.
func TestExecSyncEndsWithItsContainer(t *testing.T) {
	n := sharedNode(t)
	c := sleeper(t, n)
	done := make(chan *runtimeapi.ExecSyncResponse, 1)
	go func() {
		resp, err := n.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Cmd: []string{"sh", "-c", "touch /tmp/here; exec sleep 7403"}})
		if err != nil {
			t.Error(err)
		}
		done <- resp
	}()
	eventually(t, "the command runs", func() bool {
		resp, err := c.TryExec(t.Context(), "cat", "/tmp/here")
		return err == nil && resp.ExitCode == 0
	})
	c.Stop(t, 0)
	select {
	case resp := <-done:
		if resp.GetExitCode() != 137 {
			t.Errorf("exit code %d, want that of SIGKILL", resp.GetExitCode())
		}
	case <-time.After(20 * time.Second):
		t.Error("ExecSync goes on without its container")
	}
}
