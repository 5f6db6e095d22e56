package cgroups

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

func TestKilled(t *testing.T) {
	for text, want := range map[string]bool{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 0\n":       false,
		"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n":       true,
		"low 0\nhigh 0\nmax 7\noom 3\noom_kill 1\n":           true,
		"low 0\nhigh 0\nmax 7\noom 3\noom_group_kill 1\n":     false,
		"low 0\nmax 7\noom 3\noom_kill 0\noom_group_kill 0\n": false,
		"": false,
	} {
		if got := killed(text); got != want {
			t.Errorf("killed(%q) is %t", text, got)
		}
	}
}

// makeCgroup makes a cgroup of a test, with one below it, in all hierarchies where that can be done.
func makeCgroup(t *testing.T, h *Host) string {
	t.Helper()
	parent := "cgroups-test-" + strconv.Itoa(os.Getpid())
	path := "/" + parent + "/" + t.Name()
	made := 0
	for _, root := range h.roots {
		if err := os.MkdirAll(filepath.Join(root, path, "inner"), 0o755); err == nil {
			made++
		}
		t.Cleanup(func() { _ = os.Remove(filepath.Join(root, parent)) })
	}
	if made == 0 {
		t.Fatalf("no cgroup can be made below %q", h.roots)
	}
	return path
}

func TestRemove(t *testing.T) {
	testkit.RequireRoot(t)
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	path := makeCgroup(t, h)
	process := exec.Command("sleep", "100")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = process.Wait() }()
	joined := 0
	for _, dir := range h.dirs(path) {
		// A cpuset without processors takes no process; version 2 takes none in the middle of a tree with controllers.
		if os.WriteFile(filepath.Join(dir, "inner", "cgroup.procs"), []byte(strconv.Itoa(process.Process.Pid)), 0) == nil {
			joined++
		}
	}
	if joined == 0 {
		t.Fatal("the process is in no cgroup")
	}
	if h.OOMKilled(path) {
		t.Error("nothing was killed for want of memory")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 2 {
		if err := h.Remove(ctx, path); err != nil {
			t.Fatal(err)
		}
	}
	if left := h.dirs(path); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the process lives")
		_ = process.Process.Kill()
	}
}

func TestRemoveRefusesTheTop(t *testing.T) {
	h := &Host{roots: []string{t.TempDir()}}
	for _, path := range []string{"", "/", "/kubepods", "kubepods", "/kubepods/.."} {
		if err := h.Remove(t.Context(), path); err == nil {
			t.Errorf("Remove(%q) is taken for done", path)
		}
	}
}
