package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/selftest"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// selftestRun is one `userns-shim selftest -o json`.
type selftestRun struct {
	report selftest.Report
	code   int
	stderr string
}

// startSelftest starts the program in the world of a node, where the registry that it serves is on the same
// loopback as the runtime. The function that it returns waits for the end.
func startSelftest(t *testing.T, world *labnode.World, args ...string) (*exec.Cmd, func() selftestRun) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), shared.programs(t).daemon, append([]string{"selftest", "-o", "json"}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := world.Start(cmd); err != nil {
		t.Fatal(err)
	}
	return cmd, func() selftestRun {
		t.Helper()
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		run := selftestRun{code: cmd.ProcessState.ExitCode(), stderr: stderr.String()}
		if err := json.Unmarshal(stdout.Bytes(), &run.report); err != nil {
			t.Fatalf("selftest exits with %d and prints no report: %v\n%s%s", run.code, err, stdout.String(), stderr.String())
		}
		return run
	}
}

func runSelftest(t *testing.T, world *labnode.World, args ...string) selftestRun {
	t.Helper()
	_, wait := startSelftest(t, world, args...)
	return wait()
}

// wantPassed wants every check to have passed, and none skipped.
func (r selftestRun) wantPassed(t *testing.T) {
	t.Helper()
	if r.code != 0 || !r.report.OK || len(r.report.Checks) != len(selftest.Names()) {
		t.Errorf("selftest exits with %d, ok %t and %d checks, want 0, true and %d: %s",
			r.code, r.report.OK, len(r.report.Checks), len(selftest.Names()), r.stderr)
	}
	for _, c := range r.report.Checks {
		if !c.OK {
			t.Errorf("%s: got %q, want %q (skipped: %t): %s", c.Name, c.Got, c.Want, c.Skipped, c.Detail)
		}
	}
}

func endpoint(socket string) string { return "--endpoint=unix://" + socket }

// TestSelftestPasses is with the image that the self-test serves itself: the node's directory of hosts.toml files
// knows nothing of its registry.
func TestSelftestPasses(t *testing.T) {
	n := sharedNode(t)
	cgroup := "--cgroup-parent=" + n.Cgroup()
	run := runSelftest(t, n.World, endpoint(n.Daemon.Socket), cgroup)
	run.wantPassed(t)
	if run.report.Runtime != "userns-shim" {
		t.Errorf("the report is of the runtime %q, want userns-shim", run.report.Runtime)
	}
	t.Run("with a busybox image", func(t *testing.T) {
		if !n.Box().Shell {
			t.Fatal("the lab's box has no shell: install busybox-static")
		}
		runSelftest(t, n.World, endpoint(n.Daemon.Socket), cgroup, "--image="+n.Image(t, labimage.Demo)).wantPassed(t)
	})
}

// TestSelftestFindsWhatIsWrong tests a runtime handler that gives no pod a user namespace.
func TestSelftestFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{
		Handlers: "  plain: {runtime: io.containerd.runc.v2, binaryName: runc, userNamespaces: never}",
	}})
	run := runSelftest(t, n.World, endpoint(n.Daemon.Socket), "--cgroup-parent="+n.Cgroup(), "--runtime-handler=plain")
	if run.code != 1 || run.report.OK {
		t.Errorf("selftest exits with %d and ok %t, want 1 and false", run.code, run.report.OK)
	}
	failed := map[string]bool{}
	for _, c := range run.report.Checks {
		if c.Failed() {
			failed[c.Name] = true
		}
	}
	if len(failed) != 2 || !failed["handler-userns"] || !failed["pod1-runs"] {
		t.Errorf("failed are %v, want handler-userns and pod1-runs", failed)
	}
}

// TestSelftestCleansUpWhenInterrupted interrupts it once its first container runs. The leak check at the end
// of the test finds what it leaves.
func TestSelftestCleansUpWhenInterrupted(t *testing.T) {
	n := sharedNode(t)
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		run := interruptedSelftest(t, n, signal)
		if run.code != 1 {
			t.Errorf("selftest exits with %d on %s, want 1: %+v", run.code, signal, run.report)
		}
		for _, c := range run.report.Checks {
			if c.Name == "cleanup" && !c.OK {
				t.Errorf("cleanup on %s: %s", signal, c.Got)
			}
		}
	}
}

// interruptedSelftest runs one that gets a signal while a container of it runs. One that was well and over before this test
// came to send the signal is made again.
func interruptedSelftest(t *testing.T, n *nodetest.Node, signal os.Signal) selftestRun {
	t.Helper()
	for range 5 {
		cmd, wait := startSelftest(t, n.World, endpoint(n.Daemon.Socket), "--cgroup-parent="+n.Cgroup())
		runs := func(p leaks.Process) bool { return n.IDs.Contains(p.UID) || p.PID == cmd.Process.Pid }
		deadline := time.Now().Add(time.Minute)
		for len(processes(t, runs)) == 1 { // itself, and no process of a pod
			if time.Now().After(deadline) {
				t.Fatal("no process of a pod came up")
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if run := wait(); run.code != 0 || !run.report.OK {
			return run
		}
		t.Logf("the self-test was over before %s", signal)
	}
	t.Fatal("five self-tests were over before they were interrupted")
	return selftestRun{}
}

// TestSelftestOfContainerd tests containerd's own CRI plugin, which leaves the choice of ids to kubelet.
func TestSelftestOfContainerd(t *testing.T) {
	t.Parallel()
	world, containerd := containerdWithCRI(t)
	run := runSelftest(t, world, endpoint(containerd.Address), "--cgroup-parent="+cgroupOf(containerd))
	run.wantPassed(t)
	for _, c := range run.report.Checks {
		if c.Name == "pod1-runs" && !strings.Contains(c.Got, "the test chose") {
			t.Errorf("pod1-runs: got %q, want a mapping that the test sent", c.Got)
		}
	}
}

// containerdWithCRI runs a containerd with its CRI plugin and a pod network, in a world of its own.
func containerdWithCRI(t *testing.T) (*labnode.World, *labnode.Containerd) {
	t.Helper()
	tools := nodetest.Tools(t)
	dir, err := os.MkdirTemp("/tmp", "uslc-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(labnode.RemoveCgroups(filepath.Base(dir)), labnode.RemoveDir(dir)); err != nil {
			t.Error(err)
		}
	})
	world, err := labnode.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(world.Close)
	containerd, err := labnode.StartContainerd(t.Context(), labnode.ContainerdOptions{
		Tools: tools, Dir: dir, World: world, WithCRI: true, ExtraConfig: criConfig(t, tools, dir, pauseImage(t, world)),
	})
	t.Cleanup(func() {
		if containerd == nil {
			return
		}
		if t.Failed() {
			t.Logf("end of the log of containerd:\n%s", labnode.LogTail(containerd.Log))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := containerd.Close(ctx); err != nil {
			t.Error(err)
		}
		for _, p := range processes(t, func(p leaks.Process) bool { return strings.Contains(p.Cmdline, dir) }) {
			t.Errorf("left behind: process %d: %s", p.PID, p.Cmdline)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return world, containerd
}

// cgroupOf is the parent cgroup that is removed together with the containerd.
func cgroupOf(c *labnode.Containerd) string { return "/" + filepath.Base(filepath.Dir(c.Address)) }

// pauseImage serves the image that containerd keeps a sandbox's namespaces open with.
func pauseImage(t *testing.T, world *labnode.World) string {
	t.Helper()
	listener, err := world.Listen()
	if err != nil {
		t.Fatal(err)
	}
	return nodetest.ServeDemo(t, listener, "pause:latest").Ref("pause:latest")
}

// criConfig gives the CRI plugin a network of one bridge.
func criConfig(t *testing.T, tools labnode.Tools, dir, pause string) string {
	t.Helper()
	confDir := filepath.Join(dir, "net.d")
	if err := os.MkdirAll(confDir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "cri", "plugins": [{"type": "bridge", "bridge": "cri0", "isGateway": true,
  "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.89.0.0/16"}]]}}]}`, filepath.Join(dir, "net-data"))
	if err := os.WriteFile(filepath.Join(confDir, "10-cri.conflist"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return labnode.PluginConfig{Sandbox: pause, CNIBinDir: tools.CNI(), CNIConfDir: confDir}.TOML()
}
