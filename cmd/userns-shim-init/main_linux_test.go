package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// startInit builds the program and runs it as process 1 of a PID namespace, with the environment
// that pods' inits have.
func startInit(t *testing.T) *exec.Cmd {
	t.Helper()
	testkit.RequireRoot(t)
	path := filepath.Join(t.TempDir(), "init")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	cmd := exec.Command(path)
	cmd.Env = []string{"GOGC=off", "GOMAXPROCS=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Both fail when the test has done it.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	await(t, "it has set its handlers", func() bool { return strings.Contains(status(t, cmd), "SigIgn:\t0000000000010000") })
	return cmd
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s still not: %s", what)
		}
	}
}

func status(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// inside runs a script in the program's PID namespace; as a child of nsenter, not of process 1.
func inside(t *testing.T, cmd *exec.Cmd, script string) {
	t.Helper()
	enter := exec.Command("nsenter", "--pid", "--target", strconv.Itoa(cmd.Process.Pid), "sh", "-c", script)
	if out, err := enter.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", script, err, out)
	}
}

func children(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	pid := cmd.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestExitsOnStopSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd := startInit(t)
			// From outside, as the OCI runtime sends it: whoever is inside ends with process 1.
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("it ends with %v, want exit code 0", err)
			}
		})
	}
}

// Process 1 is immune to signals from inside its namespace, unless it has handlers, as the Go
// runtime does.
func TestOutlivesOtherSignals(t *testing.T) {
	cmd := startInit(t)
	for sig := 1; sig <= 64; sig++ {
		if s := syscall.Signal(sig); s == syscall.SIGTERM || s == syscall.SIGINT {
			continue
		}
		inside(t, cmd, fmt.Sprintf("kill -%d 1", sig))
	}
	time.Sleep(100 * time.Millisecond) // for what would end it, or stop it
	await(t, "it sleeps, after all signals", func() bool { return strings.Contains(status(t, cmd), "State:\tS") })
}

func TestLeavesNoZombies(t *testing.T) {
	cmd := startInit(t)
	// Orphans that end later, and some that are zombies when they become orphans.
	cue := filepath.Join(t.TempDir(), "cue")
	inside(t, cmd, "exec >/dev/null 2>&1; for i in 1 2 3 4 5; do (while [ ! -e "+cue+" ]; do sleep 0.1; done; sleep 0.$i) & sh -c 'sleep 0 & exec sleep 0.05'; done")
	if children(t, cmd) == "" {
		t.Error("it has adopted no orphan, so the test shows nothing")
	}
	if err := os.WriteFile(cue, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "it has no children", func() bool { return children(t, cmd) == "" })
}

// maxAnonymous bounds what each pod with a shared PID namespace costs, in KiB, beside the program's
// pages, which all share. It was 456 at most when the program was written, with Go 1.26.
const maxAnonymous = 700

func TestMemory(t *testing.T) {
	cmd := startInit(t)
	inside(t, cmd, "for i in 1 2 3 4 5 6 7 8 9 10; do (true &) ; done")
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	anonymous := 0
	for line := range strings.Lines(string(rollup)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "Anonymous:" {
			if anonymous, err = strconv.Atoi(fields[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if anonymous == 0 || anonymous > maxAnonymous {
		t.Errorf("%d KiB of memory, want at most %d:\n%s", anonymous, maxAnonymous, rollup)
	}
	t.Logf("%d KiB of memory", anonymous)
}

// Which ids the threads get is by chance in a pod. What comes later never has one of those.
func TestLowProcessIDsAreItsOwn(t *testing.T) {
	cmd := startInit(t)
	const first = 32
	await(t, "it sleeps", func() bool { return strings.Contains(status(t, cmd), "State:\tS") })
	inside(t, cmd, fmt.Sprintf("test $$ -ge %d", first))
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatal("no threads", err)
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, ids, _ := strings.Cut(string(text), "\nNSpid:")
		ids, _, _ = strings.Cut(ids, "\n")
		fields := strings.Fields(ids)
		if id, err := strconv.Atoi(fields[len(fields)-1]); err != nil || id >= first {
			t.Errorf("a thread has process id %d (%v)", id, err)
		}
	}
}
