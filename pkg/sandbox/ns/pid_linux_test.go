package ns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

var nextTask atomic.Uint32

// newTask starts a process that waits, as process 1 of a PID namespace and in a cgroup of its own,
// and ends it with the test.
func newTask(t *testing.T) Task {
	t.Helper()
	testkit.RequireRoot(t)
	id := fmt.Sprintf("userns-shim-test-%d-%d", os.Getpid(), nextTask.Add(1))
	group := newCgroup(t, id)
	// No Pdeathsig: it comes with the end of the thread that has started the process, and Create ends threads.
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// It fails when the test has ended the process.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(pid), 0); err != nil {
		t.Fatal(err)
	}
	return Task{PID: cmd.Process.Pid, ID: id}
}

// newCgroup makes a group at the top of the first hierarchy that lets one be made.
func newCgroup(t *testing.T, name string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if len(fields) < 5 || !strings.HasPrefix(after, "cgroup") || strings.Contains(after, "cpuset") {
			continue
		}
		dir := filepath.Join(fields[4], name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			deadline := time.Now().Add(10 * time.Second)
			for err := os.Remove(dir); err != nil; err = os.Remove(dir) {
				if time.Now().After(deadline) {
					t.Errorf("remove cgroup: %v", err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
		return dir
	}
	t.Fatal("no cgroup hierarchy lets a group be made")
	return ""
}

// end kills a task, waits until it is a zombie, and leaves it one: the number stays taken.
func end(t *testing.T, task Task) {
	t.Helper()
	if err := syscall.Kill(task.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", task.PID))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(status), "State:\tZ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not end", task.PID)
		}
	}
}

// newPin is a path for a pin in a directory that has to be empty when the test ends.
func newPin(t *testing.T) string {
	t.Helper()
	req := newRequest(t)
	path := filepath.Join(req.Dir, "pid")
	t.Cleanup(func() {
		if err := errors.Join(UnpinPID(path), Remove(context.Background(), req.Dir, "")); err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestPinPID(t *testing.T) {
	task, path := newTask(t), newPin(t)
	if err := PinPID(task, path); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nsenter", "--pid="+path, "sh", "-c", "echo $PPID; kill -0 1 && echo alive").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "0\nalive" {
		t.Errorf("in the pinned namespace: %v, %q", err, out)
	}
	if err := CheckPID(task, path); err != nil {
		t.Errorf("CheckPID: %v", err)
	}
	if err := PinPID(task, path); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second pin at one path: %v, want %v", err, os.ErrExist)
	}
	if err := CheckPID(task, path); err != nil {
		t.Errorf("after a second attempt to pin: %v", err)
	}
	for range 2 {
		if err := UnpinPID(path); err != nil {
			t.Errorf("UnpinPID: %v", err)
		}
	}
	if err := CheckPID(task, path); !errors.Is(err, ErrNotPinned) {
		t.Errorf("without the pin: %v, want %v", err, ErrNotPinned)
	}
}

func TestPinPIDRefuses(t *testing.T) {
	living, ended := newTask(t), newTask(t)
	end(t, ended)
	path := newPin(t)
	for name, task := range map[string]Task{
		"a zombie":                    ended,
		"a number that nobody has":    {PID: 1 << 22, ID: living.ID},
		"a number that another has":   {PID: os.Getpid(), ID: living.ID},
		"a task without an id":        {PID: living.PID},
		"the id of another container": {PID: living.PID, ID: ended.ID},
		"a process that was a zombie": {PID: ended.PID, ID: living.ID},
		"no process at all":           {ID: living.ID},
	} {
		if err := PinPID(task, path); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, want %v", name, err, ErrGone)
		}
		if err := CheckPID(task, path); !errors.Is(err, ErrGone) {
			t.Errorf("check of %s: %v, want %v", name, err, ErrGone)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: a pin is left (%v)", name, err)
		}
	}
}

func TestCheckPIDOfAnotherNamespace(t *testing.T) {
	task, other, path := newTask(t), newTask(t), newPin(t)
	if err := PinPID(other, path); err != nil {
		t.Fatal(err)
	}
	if err := CheckPID(task, path); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v, want %v", err, ErrForeign)
	}
	req := newRequest(t)
	pins := create(t, req)
	if err := CheckPID(task, pins.IPC); !errors.Is(err, ErrForeign) || !strings.Contains(fmt.Sprint(err), "PID") {
		t.Errorf("an IPC namespace: %v, want %v", err, ErrForeign)
	}
}

// What is pinned stays the dead one's: a process that got the number later is not joined.
func TestPinOutlivesTheTask(t *testing.T) {
	task, path := newTask(t), newPin(t)
	if err := PinPID(task, path); err != nil {
		t.Fatal(err)
	}
	end(t, task)
	if err := CheckPID(task, path); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want %v", err, ErrGone)
	}
	if out, err := exec.Command("nsenter", "--pid="+path, "true").CombinedOutput(); err == nil {
		t.Errorf("a namespace without process 1 took one in: %s", out)
	}
}

func TestAwaitExit(t *testing.T) {
	task := newTask(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := AwaitExit(ctx, task); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("while it lives: %v, want %v", err, context.DeadlineExceeded)
	}
	ended := make(chan error, 1)
	go func() { ended <- AwaitExit(context.Background(), task) }()
	select {
	case err := <-ended:
		t.Fatalf("it ended before the task: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	end(t, task)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not return")
	}
	// And at once for what is gone, or was never there.
	for _, gone := range []Task{task, {PID: os.Getpid(), ID: task.ID}, {}} {
		if err := AwaitExit(t.Context(), gone); err != nil {
			t.Errorf("%v: %v", gone, err)
		}
	}
}
