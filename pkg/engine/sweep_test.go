package engine_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/pkg/container"
)

// runtimeState is where runc keeps what it knows of a container.
func (b *box) runtimeState() string {
	return filepath.Join(cmp.Or(b.root, "/run/containerd/runc"), labnode.Namespace, b.id)
}

// wantSwept deletes a task that containerd does not know, and wants its process and runc's state gone. What else can be
// left, the lab's check of leaks finds.
func (b *box) wantSwept(t *testing.T, pid int) {
	t.Helper()
	if state, err := b.l.TaskState(t.Context(), b.id); !errdefs.IsNotFound(err) {
		t.Fatalf("containerd knows the task: %+v, %v", state, err)
	}
	if _, err := b.l.DeleteTask(t.Context(), b.group, b.id); !errdefs.IsNotFound(err) {
		t.Errorf("DeleteTask: %v, want not found", err)
	}
	if _, err := os.Stat(b.runtimeState()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("state of the OCI runtime: %v, want none", err)
	}
	awaitGone(t, pid)
}

// forget makes containerd forget a task, as it does when the client that has it created goes away.
func (l *lab) forget(t *testing.T, boxes ...*box) {
	t.Helper()
	if err := l.containerd.Kill9(); err != nil {
		t.Fatal(err)
	}
	for _, b := range boxes {
		if err := os.RemoveAll(filepath.Join(l.containerd.State, "io.containerd.runtime.v2.task", labnode.Namespace, b.id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.containerd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, l.Engine)
}

// TestTaskThatOnlyItsShimKnows is deleted with its shim, and without it where another task is in the shim; also where the
// OCI runtime has its state elsewhere.
func TestTaskThatOnlyItsShimKnows(t *testing.T) {
	l := newLab(t)
	demo := l.pull(labimage.Demo)
	group := newID()
	alone := l.newBox(demo, newID(), "sleep", "1000")
	forgotten := l.newBox(demo, group, "sleep", "1000")
	known := l.newBox(demo, group, "sleep", "1000")
	elsewhere := l.prepareBox(demo, newID(), "sleep", "1000")
	elsewhere.root = t.TempDir()
	elsewhere.record()
	pids := map[*box]int{}
	for _, b := range []*box{alone, forgotten, known, elsewhere} {
		b.start(container.Stdio{})
		pids[b] = l.pid(b)
		if _, err := os.Stat(b.runtimeState()); err != nil {
			t.Fatal(err)
		}
	}
	shim := parent(t, pids[alone])
	l.forget(t, alone, forgotten, elsewhere)
	alone.wantSwept(t, pids[alone])
	awaitGone(t, shim)
	forgotten.wantSwept(t, pids[forgotten])
	elsewhere.wantSwept(t, pids[elsewhere])
	wantStatus(t, l, known.id, "running")
	fresh := l.newBox(demo, group, "true")
	if code, _ := fresh.run(); code != 0 {
		t.Errorf("a new task of the group exits with %d", code)
	}
}

// TestTaskThatTheRuntimeForgot keeps its shim from ending until it is deleted there.
func TestTaskThatTheRuntimeForgot(t *testing.T) {
	l := newLab(t)
	b := l.newBox(l.pull(labimage.Demo), newID(), "sleep", "1000")
	b.start(container.Stdio{})
	pid := l.pid(b)
	shim := parent(t, pid)
	l.forget(t, b)
	remove := exec.Command(testkit.RequireBin(t, "runc"), "--root", filepath.Dir(b.runtimeState()), "delete", "--force", b.id)
	if out, err := remove.CombinedOutput(); err != nil {
		t.Fatalf("runc delete: %v: %s", err, out)
	}
	b.wantSwept(t, pid)
	awaitGone(t, shim)
}

// TestTaskWhoseBundleIsJustRemoved is deleted with its shim all the same.
func TestTaskWhoseBundleIsJustRemoved(t *testing.T) {
	l := newLab(t)
	b := l.newBox(l.pull(labimage.Demo), newID(), "sleep", "1000")
	b.start(container.Stdio{})
	pid := l.pid(b)
	shim := parent(t, pid)
	l.forget(t, b)
	// What is there is no directory that runc can log in.
	bundle := filepath.Join(l.containerd.State, "io.containerd.runtime.v2.task", labnode.Namespace, b.id)
	if err := os.WriteFile(bundle, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	removed := make(chan error)
	time.AfterFunc(150*time.Millisecond, func() { removed <- os.Remove(bundle) })
	b.wantSwept(t, pid)
	if err := <-removed; err != nil {
		t.Error(err)
	}
	awaitGone(t, shim)
}

// TestTaskThatOnlyTheRuntimeKnows has neither a shim nor containerd any more.
func TestTaskThatOnlyTheRuntimeKnows(t *testing.T) {
	l := newLab(t)
	b := l.newBox(l.pull(labimage.Demo), newID(), "sleep", "1000")
	bundle := t.TempDir()
	config, err := json.Marshal(b.spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	// Its output stays /dev/null: the container inherits it, and a pipe would not end before that.
	log := filepath.Join(bundle, "log")
	create := exec.Command(testkit.RequireBin(t, "runc"), "--root", filepath.Dir(b.runtimeState()), "--log", log,
		"create", "--bundle", bundle, "--pid-file", filepath.Join(bundle, "pid"), b.id)
	if err := create.Run(); err != nil {
		t.Fatalf("runc create: %v: %s", err, labnode.LogTail(log))
	}
	text, err := os.ReadFile(filepath.Join(bundle, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := json.Unmarshal(text, &pid); err != nil {
		t.Fatal(err)
	}
	b.wantSwept(t, pid)
}

// TestSettleWaitsForThoseAtWork: for the tasks that are asked for, and for no shim that is just there.
func TestSettleWaitsForThoseAtWork(t *testing.T) {
	l := newLab(t)
	b := l.newBox(l.pull(labimage.Demo), newID(), "sleep", "1000")
	b.start(container.Stdio{})
	for _, tc := range []struct {
		name string
		args []string
		wait bool
	}{
		{"runc", []string{"--root", "/run/containerd/runc/k8s.io", "create", "--bundle", "/b", b.id}, true},
		{"shim", []string{"-namespace", "k8s.io", "-id", b.id, "start"}, true},
		{"runc of another", []string{"create", newID()}, false},
		{"tail", []string{"-f", "/logs/" + b.id}, false},
	} {
		// sh -c with a script of its own shows the rest as arguments.
		cmd := exec.Command("sh", append([]string{"-c", "read x; :", tc.name}, tc.args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if tc.wait {
			ctx, cancel = context.WithTimeout(ctx, time.Second)
		}
		if err := l.Settle(ctx, []string{b.id}); errors.Is(err, context.DeadlineExceeded) != tc.wait || err != nil && !tc.wait {
			t.Errorf("%s, which goes on: %v, want to wait: %t", tc.name, err, tc.wait)
		}
		cancel()
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // says that read found nothing
		if err := l.Settle(t.Context(), []string{b.id}); err != nil {
			t.Errorf("%s, which has ended: %v", tc.name, err)
		}
	}
}
