package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// trace watches a daemon's mount_setattr calls with strace.
type trace struct {
	cmd *exec.Cmd
	out string
}

// traceIDMaps attaches to all threads of the node's userns-shim, and to the children it will have.
func traceIDMaps(t *testing.T, n *nodetest.Node) *trace {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatalf("%v: install the Debian package strace", err)
	}
	tr := &trace{out: filepath.Join(t.TempDir(), "trace")}
	pid := n.Daemon.PID()
	tr.cmd = exec.Command(strace, "-f", "-qq", "-e", "trace=mount_setattr", "-o", tr.out, "-p", fmt.Sprint(pid))
	var messages bytes.Buffer
	tr.cmd.Stderr = &messages
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.end() })
	for range 500 {
		if attached(t, pid, tr.cmd.Process.Pid) {
			return tr
		}
		time.Sleep(10 * time.Millisecond)
	}
	tr.end()
	t.Fatalf("strace does not attach: %s", messages.String())
	return nil
}

// attached tells whether every thread of pid is traced by tracer.
func attached(t *testing.T, pid, tracer int) bool {
	t.Helper()
	statuses, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range statuses {
		status, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has just ended
		}
		if !strings.Contains(string(status), fmt.Sprintf("\nTracerPid:\t%d\n", tracer)) {
			return false
		}
	}
	return len(statuses) > 0
}

// end detaches. It may be called again.
func (tr *trace) end() {
	if tr.cmd.ProcessState == nil {
		_ = tr.cmd.Process.Signal(syscall.SIGTERM)
		_ = tr.cmd.Wait() // strace ends with the signal that it got
	}
}

// stop detaches and returns how many successful calls idmapped a mount.
func (tr *trace) stop(t *testing.T) int {
	t.Helper()
	tr.end()
	text, err := os.ReadFile(tr.out)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "MOUNT_ATTR_IDMAP") && strings.HasSuffix(strings.TrimSpace(line), "= 0") {
			count++
		}
	}
	return count
}
