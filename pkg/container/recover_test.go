package container

import (
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func (f *fakeEngine) setHung(id string, hung bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hung = map[string]bool{id: hung}
}

// TestRecoverBesideAShimThatHangs: containerd lists no task whose shim does not answer in time. Such a container runs on and is
// watched: taken for gone, kubelet would start it once more beside itself.
func TestRecoverBesideAShimThatHangs(t *testing.T) {
	n := newNode(t)
	id := n.mustStart(t, "a")
	n.engine.setHung(id, true)
	n.restart(t)
	if err := n.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rec, err := n.Get(id); err != nil || rec.State != StateRunning {
		t.Errorf("the container is %s, %v", rec.State, err)
	}
	n.engine.setHung(id, false)
	n.engine.end(id, 7)
	if rec := n.awaitExit(t, id); rec.ExitCode != 7 {
		t.Errorf("exit code %d, want 7", rec.ExitCode)
	}
}

// TestRecoverLeavesAnExitedContainerOfAHungShim: it does not keep all others waiting, and is cleaned up when its shim answers.
func TestRecoverLeavesAnExitedContainerOfAHungShim(t *testing.T) {
	n := newNode(t)
	id := n.mustStart(t, "a")
	rec, err := n.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
	rec.State = StateExited
	if err := n.table.Save(rec); err != nil {
		t.Fatal(err)
	}
	n.engine.setHung(id, true)
	n.restart(t)
	if err := n.Recover(t.Context()); err == nil || errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("recovery: %v, want an error that does not say that containerd is away", err)
	}
	n.engine.setHung(id, false)
	n.engine.end(id, 0)
	for deadline := time.Now().Add(10 * time.Second); n.engine.has(id); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its task is left")
		}
	}
	n.engine.mu.Lock()
	n.engine.fail, n.engine.failure = "list tasks", errdefs.ErrUnavailable
	n.engine.mu.Unlock()
	if err := n.Recover(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("recovery without containerd: %v", err)
	}
}

func (f *fakeEngine) has(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tasks[id] != nil
}
