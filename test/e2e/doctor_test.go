package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/doctor"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// runDoctor runs `userns-shim doctor` on the node, with the configuration of its daemon.
func runDoctor(t *testing.T, n *nodetest.Node, args ...string) (doctor.Report, int) {
	t.Helper()
	cmd := exec.Command(shared.programs(t).daemon, append([]string{"doctor", "--config", n.Daemon.Config, "-o", "json"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := n.World.Output(cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var report doctor.Report
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("doctor prints %q and %q: %v", out, errs.String(), err)
	}
	return report, cmd.ProcessState.ExitCode()
}

// wantDoctor is what has to be among the findings, as "check severity", with words of it.
func wantDoctor(t *testing.T, r doctor.Report, what, says string) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Check+" "+string(f.Severity) == what && strings.Contains(f.Message+" -> "+f.Remedy, says) {
			return
		}
	}
	t.Errorf("no finding %q with %q in %+v", what, says, r.Findings)
}

// doctorErrors are the checks that found an error.
func doctorErrors(r doctor.Report) []string {
	var out []string
	for _, f := range r.Findings {
		if f.Severity == doctor.Error {
			out = append(out, f.Check)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestDoctorOnANodeThatRuns finds nothing that keeps pods from running, for they do.
func TestDoctorOnANodeThatRuns(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	onNodeFile(t, n, "/etc/subuid", "")
	onNodeFile(t, n, "/etc/subgid", "")
	pod := n.RunPod(t)
	report, code := runDoctor(t, n, "--severity", "error")
	if got := doctorErrors(report); code != 0 || len(got) != 0 {
		t.Errorf("exits with %d and errors about %q: %+v", code, got, report.Findings)
	}
	for what, says := range map[string]string{
		"daemon ok": "process", "containerd ok": "containerd v2", "handler ok": "runc", "network ok": "plugins",
		"filesystem ok": "images of the snapshotter overlayfs", "state ok": "state.db is well", "pool ok": "nobody else", "kernel ok": "user namespaces",
	} {
		wantDoctor(t, report, what, says)
	}
	intruder(t, pod.Range(t))
	checkPool(t, n, 1, "--fresh")
	report, code = runDoctor(t, n, "--quiet")
	wantDoctor(t, report, "pool error", "foreign-namespace")
	if code != 1 || slices.ContainsFunc(report.Findings, func(f doctor.Finding) bool { return f.Severity == doctor.OK }) {
		t.Errorf("exits with %d and tells what is well: %+v", code, report.Findings)
	}
	text, err := n.World.Output(exec.Command(shared.programs(t).daemon, "doctor", "--config", n.Daemon.Config))
	if err == nil || !strings.Contains(string(text), "error    pool         foreign-namespace") || !strings.Contains(string(text), "-> ") {
		t.Errorf("%v, and in words:\n%s", err, text)
	}
}

// TestDoctorWhileThingsAreDown: the daemon, its database, containerd, the network, the configuration.
func TestDoctorWhileThingsAreDown(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{NoCNI: true})
	onNodeFile(t, n, "/etc/subuid", fmt.Sprintf("mallory:%d:65536\n", n.Pool().Start))
	report, code := runDoctor(t, n)
	wantDoctor(t, report, "network error", "install the cluster's network plugin")
	if code != 1 {
		t.Errorf("exits with %d", code)
	}
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, _ = runDoctor(t, n)
	wantDoctor(t, report, "daemon error", "start it")
	wantDoctor(t, report, "limits unknown", "daemon")
	wantDoctor(t, report, "state ok", "is well")
	wantDoctor(t, report, "pool warning", "mallory") // it looks itself
	wantDoctor(t, report, "handler ok", "runc")

	db := filepath.Join(n.Daemon.Root, "state.db")
	good, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(db, 5000); err != nil {
		t.Fatal(err)
	}
	report, _ = runDoctor(t, n)
	wantDoctor(t, report, "state error", "damaged")
	if err := os.WriteFile(db, good, 0o600); err != nil {
		t.Fatal(err)
	}
	report, _ = runDoctor(t, n, "--containerd", "/nonexistent/containerd.sock")
	wantDoctor(t, report, "containerd error", "/nonexistent/containerd.sock")
	wantDoctor(t, report, "handler unknown", "containerd")
	config, err := os.ReadFile(n.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Daemon.Config, append(config, "\nnonsense: 5\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	report, _ = runDoctor(t, n)
	wantDoctor(t, report, "config error", "nonsense")
	if err := os.WriteFile(n.Daemon.Config, config, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, _ = runDoctor(t, n)
	wantDoctor(t, report, "daemon ok", "process")
}
