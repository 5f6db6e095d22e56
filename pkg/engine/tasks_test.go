package engine_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/pkg/container"
)

func TestTaskLife(t *testing.T) {
	l := newLab(t)
	demo := l.pull(labimage.Demo)

	t.Run("output and exit code", func(t *testing.T) {
		code, out := l.in(t).newBox(demo, newID(), "sh", "-c", "echo hello; exit 7").run()
		if code != 7 || out != "hello\n" {
			t.Errorf("exit code %d and output %q, want 7 and hello", code, out)
		}
	})
	t.Run("states", func(t *testing.T) { testStates(t, l.in(t), demo) })
	t.Run("a task that never started is deleted", func(t *testing.T) {
		b := l.in(t).newBox(demo, newID(), "sleep", "infinity")
		if _, err := l.CreateTask(t.Context(), b.group, b.id, container.Stdio{}); err != nil {
			t.Fatal(err)
		}
		if exit, err := l.DeleteTask(t.Context(), b.group, b.id); err != nil || exit.Code != 137 {
			t.Errorf("delete: exit %+v, error %v, want code 137", exit, err)
		}
	})
	t.Run("a command that is missing", func(t *testing.T) {
		b := l.in(t).newBox(demo, newID(), "no-such-command")
		_, err := l.CreateTask(t.Context(), b.group, b.id, container.Stdio{})
		if err == nil || !strings.Contains(err.Error(), "no-such-command") {
			t.Errorf("create task: %v, want an error that names the command", err)
		}
		if _, err := l.TaskState(t.Context(), b.id); !errdefs.IsNotFound(err) {
			t.Errorf("state after the failed create: %v, want not found", err)
		}
	})
	t.Run("standard input ends", func(t *testing.T) { testStdin(t, l.in(t), demo) })
	t.Run("pipes belong to the task's user", func(t *testing.T) { testPipeOwner(t, l.in(t), demo) })
	t.Run("record", func(t *testing.T) { testRecord(t, l.in(t), demo) })
}

func testStates(t *testing.T, l *lab, demo string) {
	ctx := t.Context()
	b := l.newBox(demo, newID(), "sh", "-c", "trap 'exit 3' TERM; while true; do sleep 0.05; done")
	if _, err := l.CreateTask(ctx, b.group, b.id, container.Stdio{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.CreateTask(ctx, b.group, b.id, container.Stdio{}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second create: %v, want already exists", err)
	}
	wantStatus(t, l, b.id, "created")
	if err := l.StartTask(ctx, b.id); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, l, b.id, "running")
	if _, err := l.DeleteTask(ctx, b.group, b.id); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete of a running task: %v, want failed precondition", err)
	}
	awaitTrap(t, l.pid(b))
	if err := l.KillTask(ctx, b.id, uint32(syscall.SIGTERM), false); err != nil {
		t.Fatal(err)
	}
	exit, err := l.WaitTask(ctx, b.id)
	if err != nil || exit.Code != 3 || time.Since(exit.At) > time.Minute {
		t.Errorf("wait: %+v, %v, want code 3 just now", exit, err)
	}
	state := wantStatus(t, l, b.id, "stopped")
	if state.Exit.Code != 3 || !state.Exit.At.Equal(exit.At) {
		t.Errorf("state of the stopped task: %+v, want exit %+v", state, exit)
	}
	if again, err := l.WaitTask(ctx, b.id); err != nil || again != exit {
		t.Errorf("wait again: %+v, %v, want %+v", again, err, exit)
	}
	if err := l.KillTask(ctx, b.id, uint32(syscall.SIGKILL), false); !errdefs.IsNotFound(err) {
		t.Errorf("kill after the end: %v, want not found", err)
	}
	if deleted, err := l.DeleteTask(ctx, b.group, b.id); err != nil || deleted.Code != 3 {
		t.Errorf("delete: %+v, %v, want code 3", deleted, err)
	}
	for what, err := range map[string]error{
		"delete": second(l.DeleteTask(ctx, b.group, b.id)),
		"wait":   second(l.WaitTask(ctx, b.id)),
		"state":  second(l.TaskState(ctx, b.id)),
		"start":  l.StartTask(ctx, b.id),
		"kill":   l.KillTask(ctx, b.id, uint32(syscall.SIGKILL), true),
	} {
		if !errdefs.IsNotFound(err) {
			t.Errorf("%s after delete: %v, want not found", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func wantStatus(t *testing.T, l *lab, id, want string) container.TaskState {
	t.Helper()
	state, err := l.TaskState(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	all, err := l.ListTasks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if state.Status != want || all[id] != state {
		t.Errorf("state %+v, in the list %+v, want %s in both", state, all[id], want)
	}
	return state
}

// testStdin holds that closing every writer is not enough, and that CloseStdin is.
func testStdin(t *testing.T, l *lab, demo string) {
	in, out := newFIFOPath(t), newFIFO(t)
	b := l.newBox(demo, newID(), "cat")
	b.start(container.Stdio{Stdin: in, Stdout: out.path})
	w, err := os.OpenFile(in, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(w, "through"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), l.CloseStdin(t.Context(), b.id, "")); err != nil {
		t.Fatal(err)
	}
	exit, err := l.WaitTask(t.Context(), b.id)
	if got := out.read(t); err != nil || exit.Code != 0 || got != "through" {
		t.Errorf("exit %+v, %v, output %q", exit, err, got)
	}
}

func newFIFOPath(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/in"
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// testPipeOwner: in a user namespace a process may reopen /dev/stderr only if the pipe behind it belongs to
// an id of that namespace (runc then gives it to the process's user). The pipes of an exec have the
// owner of the task's.
func testPipeOwner(t *testing.T, l *lab, demo string) {
	const first = 2147418112 // of the host ids that the namespace maps
	user := specs.User{UID: labimage.NonRoot, GID: labimage.NonRoot}
	for owner, want := range map[uint32]bool{0: false, first: true} {
		b := l.prepareBox(demo, newID(), "sleep", "infinity")
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: first, Size: 65536}}
		b.spec.Linux.GIDMappings = b.spec.Linux.UIDMappings
		b.record()
		b.start(container.Stdio{Stdout: newFIFO(t).path, UID: owner, GID: owner})
		code := l.exec(t, b.id, container.Stdio{Stderr: newFIFO(t).path}, user, "sh", "-c", "echo x >/proc/self/fd/2")
		if (code == 0) != want {
			t.Errorf("a user reopens its stderr, pipes belong to %d: exit code %d, want success %v", owner, code, want)
		}
	}
}

// exec runs a process in the task and returns its exit code.
func (l *lab) exec(t *testing.T, id string, io container.Stdio, user specs.User, args ...string) uint32 {
	t.Helper()
	req := container.ExecRequest{
		ContainerID: id, ExecID: newID(), Stdio: io,
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, User: user},
	}
	if _, err := l.StartExec(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	exit, err := l.WaitExec(t.Context(), id, req.ExecID)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteExec(t.Context(), id, req.ExecID); err != nil {
		t.Fatal(err)
	}
	return exit.Code
}

func testRecord(t *testing.T, l *lab, demo string) {
	b := l.newBox(demo, newID(), "true")
	ids, err := l.ListRecords(t.Context(), "lab", "yes")
	if err != nil || !contains(ids, b.id) {
		t.Errorf("records with the label: %v, %v, want %s among them", ids, err, b.id)
	}
	if ids, err := l.ListRecords(t.Context(), "lab", "no"); err != nil || len(ids) != 0 {
		t.Errorf("records with another value: %v, %v", ids, err)
	}
	spec, err := l.RecordSpec(t.Context(), b.id)
	if err != nil || spec.Root.Path != b.spec.Root.Path {
		t.Errorf("spec of the record: %+v, %v", spec, err)
	}
	if err := l.CreateRecord(t.Context(), container.EngineRecord{ID: b.id, Runtime: "io.containerd.runc.v2", Spec: b.spec}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second record: %v, want already exists", err)
	}
	if err := l.DeleteRecord(t.Context(), newID()); !errdefs.IsNotFound(err) {
		t.Errorf("delete of no record: %v, want not found", err)
	}
}

func contains(list []string, want string) bool {
	for _, s := range list {
		if s == want {
			return true
		}
	}
	return false
}
