package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/image"
)

// waiting waits for a task in the background.
type waiting struct {
	exit container.Exit
	err  error
	done chan struct{}
}

func (b *box) wait(e *engine.Engine) *waiting {
	w := &waiting{done: make(chan struct{})}
	ctx := b.l.t.Context()
	go func() {
		defer close(w.done)
		w.exit, w.err = e.WaitTask(ctx, b.id)
	}()
	return w
}

func (w *waiting) want(t *testing.T, what string, code uint32) {
	t.Helper()
	select {
	case <-w.done:
		if w.err != nil || w.exit.Code != code {
			t.Errorf("%s: exit %+v, error %v, want code %d", what, w.exit, w.err, code)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("%s: WaitTask does not return", what)
	}
}

// TestContainerdIsKilled: tasks run on, and every wait ends with the right exit code, whether the task
// exits before, while or after containerd is away.
func TestContainerdIsKilled(t *testing.T) {
	l := newLab(t)
	demo := l.pull(labimage.Demo)
	group := newID()
	before := l.newBox(demo, group, "sh", "-c", "exit 4")
	during := l.newBox(demo, group, "sh", "-c", "trap 'exit 5' TERM; while true; do sleep 0.05; done")
	alone := l.newBox(demo, newID(), "sh", "-c", "trap 'exit 6' TERM; while true; do sleep 0.05; done")
	after := l.newBox(demo, group, "sh", "-c", "trap 'exit 7' TERM; while true; do sleep 0.05; done")
	waits := make(map[*box]*waiting)
	for _, b := range []*box{before, during, alone, after} {
		b.start(container.Stdio{})
		waits[b] = b.wait(l.Engine)
	}
	waits[before].want(t, "exit before", 4)
	pids := map[*box]int{during: l.pid(during), alone: l.pid(alone), after: l.pid(after)}
	for _, pid := range pids {
		awaitTrap(t, pid)
		awaitWatched(t, pid)
	}

	if err := l.containerd.Kill9(); err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, l.Engine, l.containerd.Address)
	for _, b := range []*box{during, alone} {
		if err := syscall.Kill(pids[b], syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		awaitGone(t, pids[b])
	}
	if err := l.containerd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, l.Engine)
	if engine.KernelTells(t) {
		waits[during].want(t, "exit while containerd was away, others run in the group", 5)
		waits[alone].want(t, "exit while containerd was away, alone in the group", 6)
	} else if <-waits[during].done; !errdefs.IsNotFound(waits[during].err) {
		t.Errorf("exit while containerd was away: %v, want not found", waits[during].err)
	}

	if err := l.KillTask(t.Context(), after.id, uint32(syscall.SIGTERM), false); err != nil {
		t.Fatal(err)
	}
	waits[after].want(t, "exit after", 7)
	after.wait(l.Engine).want(t, "wait of a new caller", 7)
	for _, b := range []*box{before, during, alone} {
		// This is containerd's, and why WaitTask needs the kernel as a witness.
		if state, err := l.TaskState(t.Context(), b.id); !errdefs.IsNotFound(err) {
			t.Errorf("containerd kept an ended task over its restart: %+v, %v: the witness is needed no more", state, err)
		}
	}
}

// TestShimIsKilled: containerd then kills the group's tasks. Each wait ends, and the group can be used again.
func TestShimIsKilled(t *testing.T) {
	l := newLab(t)
	first := l.newBox(l.pull(labimage.Demo), newID(), "sleep", "infinity")
	other, err := first.another("sleep", "infinity")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.remove)
	waits := make([]*waiting, 0, 2)
	for _, b := range []*box{first, other} {
		b.start(container.Stdio{})
		waits = append(waits, b.wait(l.Engine))
	}
	for _, b := range []*box{first, other} {
		awaitWatched(t, l.pid(b))
	}
	if err := syscall.Kill(parent(t, l.pid(first)), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, w := range waits {
		if engine.KernelTells(t) {
			w.want(t, "wait for a task of the killed shim", 137)
		} else {
			<-w.done
		}
	}
	if err := first.cycle(t.Context()); err != nil {
		t.Errorf("a task after the end of the shim: %v", err)
	}
}

// parent returns the parent of a process; that of a container's first process is its shim.
func parent(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "PPid:"); ok {
			ppid, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil {
				t.Fatal(err)
			}
			return ppid
		}
	}
	t.Fatalf("process %d has no parent", pid)
	return 0
}

func (l *lab) pid(b *box) int {
	l.t.Helper()
	state, err := l.TaskState(l.t.Context(), b.id)
	if err != nil {
		l.t.Fatal(err)
	}
	return int(state.PID)
}

func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		if syscall.Kill(pid, 0) != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d does not end", pid)
}

// awaitTrap waits until a shell catches SIGTERM. Until then the kernel drops the signal, for the shell is process 1 of its namespace.
func awaitTrap(t *testing.T, pid int) {
	t.Helper()
	await(t, fmt.Sprintf("process %d catches SIGTERM", pid), func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, caught, _ := strings.Cut(string(status), "\nSigCgt:\t")
		caught, _, _ = strings.Cut(caught, "\n")
		mask, err := strconv.ParseUint(caught, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return mask&(1<<(uint(syscall.SIGTERM)-1)) != 0
	})
}

// awaitWatched waits until a WaitTask has the process itself to ask how it ends, where the kernel tells that.
func awaitWatched(t *testing.T, pid int) {
	t.Helper()
	if !engine.KernelTells(t) {
		return
	}
	await(t, fmt.Sprintf("process %d is watched", pid), func() bool {
		files, err := filepath.Glob("/proc/self/fdinfo/*")
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(files, func(file string) bool {
			text, _ := os.ReadFile(file) // it may be closed by now
			return strings.Contains(string(text), fmt.Sprintf("\nPid:\t%d\n", pid))
		})
	})
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s still not: %s", what)
		}
	}
}

func awaitReady(t *testing.T, e *engine.Engine) {
	t.Helper()
	var err error
	for range 100 {
		if err = e.Ready(t.Context()); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(err)
}

// wantUnavailable calls the engine in several ways: each has to fail soon, and to name the address.
func wantUnavailable(t *testing.T, e *engine.Engine, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for what, err := range map[string]error{
		"ready":    e.Ready(ctx),
		"list":     second(e.List(ctx)),
		"state":    second(e.TaskState(ctx, "x")),
		"create":   second(e.CreateTask(ctx, "g", "x", container.Stdio{})),
		"delete":   second(e.DeleteTask(ctx, "g", "x")),
		"prepare":  second(e.PrepareSnapshot(ctx, container.SnapshotRequest{Key: "x", ImageID: "sha256:x"})),
		"pull":     second(e.Pull(ctx, image.PullRequest{Ref: "127.0.0.1:1/x:latest"})),
		"usage":    second(e.FSUsage(ctx, "native")),
		"features": second(e.RuntimeFeatures(ctx, "io.containerd.runc.v2", "crun")),
	} {
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), address) {
			t.Errorf("%s while containerd is down: %v, want unavailable at %s", what, err, address)
		}
	}
	if ctx.Err() != nil {
		t.Error("calls took more than 10 seconds while containerd was down")
	}
}

// TestContainerdIsDown needs neither root nor a containerd: the engine starts without.
func TestContainerdIsDown(t *testing.T) {
	address := filepath.Join(t.TempDir(), "no.sock")
	e, err := engine.New(engine.Options{Address: address, Namespace: "k8s.io"})
	if err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, e, address)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Pull(t.Context(), image.PullRequest{Ref: "127.0.0.1:1/x:latest"}); err == nil {
		t.Error("a closed engine pulls")
	}
}

func TestNewRefusesBadOptions(t *testing.T) {
	for _, opts := range []engine.Options{
		{Namespace: "k8s.io"},
		{Address: "containerd.sock", Namespace: "k8s.io"},
		{Address: "/run/containerd/containerd.sock"},
	} {
		if _, err := engine.New(opts); !errdefs.IsInvalidArgument(err) {
			t.Errorf("New(%+v): %v, want invalid argument", opts, err)
		}
	}
}
