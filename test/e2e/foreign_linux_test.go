package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// checkPool runs `pool check` as JSON, which has to exit with a code.
func checkPool(t *testing.T, n *nodetest.Node, code int, args ...string) admin.Check {
	t.Helper()
	stdout, stderr, got := poolCommand(t, n, append([]string{"check", "-o", "json"}, args...)...)
	if got != code {
		t.Errorf("pool check %q exits with %d, want %d: %s%s", args, got, code, stdout, stderr)
	}
	var check admin.Check
	if err := json.Unmarshal([]byte(stdout), &check); err != nil {
		t.Fatalf("pool check prints %q: %v", stdout, err)
	}
	return check
}

// finding is the one of a code, which has to be there.
func finding(t *testing.T, check admin.Check, code string) admin.Finding {
	t.Helper()
	i := slices.IndexFunc(check.Findings, func(f admin.Finding) bool { return f.Code == code })
	if i < 0 {
		t.Fatalf("no finding %s in %+v", code, check.Findings)
	}
	return check.Findings[i]
}

// onNodeFile puts a file of the node's own over one of the host's until the test ends.
func onNodeFile(t *testing.T, n *nodetest.Node, path, text string) {
	t.Helper()
	own := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	mountOn(t, n, path, "--bind", own)
}

// intruder is a process in a user namespace over host ids, which ends with the test.
func intruder(t *testing.T, start uint32) *exec.Cmd {
	t.Helper()
	ids := []syscall.SysProcIDMap{{HostID: int(start), Size: 65536}}
	// No Pdeathsig: it comes with the end of the thread that has started the process, and nodes that end take threads with them.
	cmd := exec.Command("sleep", "100")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() }) // killed, which Wait tells
	return cmd
}

// TestScannerFindsForeignOwners: a node that is well shows nothing, its own pods are no foreigners, and each kind of owner that
// comes is told of by pool check and by the metrics.
func TestScannerFindsForeignOwners(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	onNodeFile(t, n, "/etc/subuid", "")
	onNodeFile(t, n, "/etc/subgid", "")
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo))
	c.Exec(t, "true")
	if check := checkPool(t, n, 0, "--fresh"); len(check.Findings) != 0 {
		t.Fatalf("a node that is well has %+v", check.Findings)
	}

	taken, spare := pod.Range(t), n.Pool().Start+n.Pool().Length-65536
	cmd := intruder(t, taken)
	onNodeFile(t, n, "/etc/subuid", fmt.Sprintf("mallory:%d:65536\nkubelet:%d:%d\n", spare, n.Kubelet().Start, n.Kubelet().Length))
	check := checkPool(t, n, 1, "--fresh", "--severity", "error")
	space := finding(t, check, "foreign-namespace")
	if space.Severity != "error" || space.Start != taken || space.Pod != pod.Request.Config.Metadata.Uid ||
		!strings.Contains(space.Message, fmt.Sprintf("process %d (sleep)", cmd.Process.Pid)) || space.Remedy == "" {
		t.Errorf("the second namespace over a pod's ids is told as %+v", space)
	}
	if line := finding(t, check, "foreign-subuid"); line.Severity != "warning" || line.Start != spare || !strings.Contains(line.Message, "mallory") {
		t.Errorf("the line is told as %+v", line)
	}
	if len(check.Findings) != 2 {
		t.Errorf("findings %+v", check.Findings)
	}
	metrics := scrapeNode(t, n)
	for _, want := range []string{`{kind="namespace"} 1`, `{kind="subuid"} 1`, `{kind="lxc"} 0`} {
		if !strings.Contains(metrics, "userns_shim_idpool_foreign_owners"+want+"\n") {
			t.Errorf("the metrics have no foreign_owners%s", want)
		}
	}

	// What was found last is told without looking, and a reservation settles what is nobody's mistake.
	_, _ = cmd.Process.Kill(), cmd.Wait()
	wantPool(t, n, "reserve", "mallory", fmt.Sprintf("%d:65536", spare))
	if check := checkPool(t, n, 1); len(check.Findings) != 2 {
		t.Errorf("without --fresh %+v", check.Findings)
	}
	if check := checkPool(t, n, 0, "--fresh"); len(check.Findings) != 0 {
		t.Errorf("in the end %+v", check.Findings)
	}
}

func scrapeNode(t *testing.T, n *nodetest.Node) string {
	t.Helper()
	resp, err := n.World.HTTPClient().Get(n.MetricsURL())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestScannerWithANameServiceThatHangs: glibc waits for ever for a FIFO in place of /etc/group. The scan tells of it in time, and of all
// that it found elsewhere; pods start meanwhile; and nobody is left waiting.
func TestScannerWithANameServiceThatHangs(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	onNodeFile(t, n, "/etc/subuid", fmt.Sprintf("mallory:%d:65536\n", n.Pool().Start))
	fifo := filepath.Join(t.TempDir(), "group")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	mountOn(t, n, "/etc/group", "--bind", fifo)
	started := make(chan time.Duration, 1)
	go func() {
		defer close(started)
		time.Sleep(500 * time.Millisecond) // into the scan
		began := time.Now()
		pod, err := n.TryRunPod(t, n.PodRequest(t))
		if err != nil {
			t.Error(err)
			return
		}
		started <- time.Since(began)
		pod.Remove(t)
	}()
	began := time.Now()
	check := checkPool(t, n, 1, "--fresh")
	took := time.Since(began)
	if took < 9*time.Second || took > 20*time.Second {
		t.Errorf("the scan took %s, want the 10 s that getent may take", took)
	}
	if f := finding(t, check, "scan-incomplete"); !strings.Contains(f.Message, "name-service") || !strings.Contains(f.Remedy, "nsswitch") {
		t.Errorf("told as %+v", f)
	}
	finding(t, check, "foreign-subuid")
	if pod := <-started; pod == 0 || pod > took/2 {
		t.Errorf("a pod that was started beside the scan took %s", pod)
	}
	if out, err := exec.Command("pgrep", "-x", "-P", fmt.Sprint(n.Daemon.PID()), "getent").Output(); err == nil {
		t.Errorf("getent is still there: %s", out)
	}
	if metrics := scrapeNode(t, n); !strings.Contains(metrics, `userns_shim_idpool_foreign_scan_failures_total{source="name-service"}`) {
		t.Error("the metrics do not count the failure")
	}
}
