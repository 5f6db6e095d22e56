package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/state"
)

// fakeProcess stands in for the process of a shared PID namespace, and fails the step named in
// fail.
type fakeProcess struct {
	mu      sync.Mutex
	fail    string
	running map[string]chan struct{} // by sandbox, closed when the process has ended
	calls   []string
}

func newFakeProcess() *fakeProcess { return &fakeProcess{running: map[string]chan struct{}{}} }

func (f *fakeProcess) step(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, name)
	if f.fail == name {
		return fmt.Errorf("%s: %w", name, errInjected)
	}
	return nil
}

func (f *fakeProcess) setFail(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = name
}

func (f *fakeProcess) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(f.calls), func(c string) bool { return c != name }))
}

// die ends the process of a sandbox by itself.
func (f *fakeProcess) die(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.running[id])
	delete(f.running, id)
}

func (f *fakeProcess) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.running)
}

func (f *fakeProcess) Ready() error { return f.step("ready") }

func (f *fakeProcess) Start(_ context.Context, rec Record) (int, error) {
	if rec.Pins.Network == "" {
		return 0, errors.New("there are no namespaces yet")
	}
	f.mu.Lock()
	f.running[rec.ID] = make(chan struct{})
	f.mu.Unlock()
	return 4711, f.step("start")
}

func (f *fakeProcess) Check(rec Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[rec.ID] == nil || rec.PID != 4711 {
		return errors.New("not there")
	}
	return nil
}

func (f *fakeProcess) Wait(ctx context.Context, rec Record) error {
	f.mu.Lock()
	f.calls = append(f.calls, "wait")
	ended := f.running[rec.ID]
	f.mu.Unlock()
	if ended == nil {
		return nil
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeProcess) Stop(_ context.Context, rec Record) error {
	if err := f.step("stop"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ended := f.running[rec.ID]; ended != nil {
		close(ended)
		delete(f.running, rec.ID)
	}
	return nil
}

// newSharingNode is a node whose pods can share a PID namespace.
func newSharingNode(t *testing.T) (*node, *fakeProcess) {
	t.Helper()
	process := newFakeProcess()
	return newNode(t, func(o *Options) { o.Process = process }), process
}

func sharingSpec(name string) Spec {
	spec := podSpec(name)
	spec.Namespaces.PID = ModePod
	return spec
}

// awaitPhase waits until the sandbox is in the phase.
func (n *node) awaitPhase(t *testing.T, id string, want Phase) Record {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		rec, err := n.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Phase == want {
			return rec
		}
		if time.Now().After(deadline) {
			t.Fatalf("sandbox is %s, want %s", rec.Phase, want)
		}
	}
}

func TestSharedPIDNamespacesHaveAProcess(t *testing.T) {
	n, process := newSharingNode(t)
	rec := n.mustRun(t, sharingSpec("a"))
	if rec.PID != 4711 || rec.Pins.PID != n.Paths(rec.ID).PID || process.left() != 1 {
		t.Errorf("pid %d, pin %q, %d processes", rec.PID, rec.Pins.PID, process.left())
	}
	if err := n.Remove(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	if process.left() != 0 {
		t.Error("the process outlived its sandbox")
	}
}

func TestOwnPIDNamespacesHaveNoProcess(t *testing.T) {
	n, process := newSharingNode(t)
	own := n.mustRun(t, podSpec("b"))
	if err := n.Remove(t.Context(), own.ID); err != nil {
		t.Fatal(err)
	}
	if own.PID != 0 || own.Pins.PID != "" || len(process.calls) != 0 {
		t.Errorf("pid %d, pin %q, calls %v", own.PID, own.Pins.PID, process.calls)
	}
}

func TestProcessThatCannotStart(t *testing.T) {
	for step, reserved := range map[string]bool{"ready": false, "start": true} {
		t.Run(step, func(t *testing.T) {
			n, process := newSharingNode(t)
			process.setFail(step)
			if _, err := n.Run(t.Context(), sharingSpec("a")); !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want the injected error", err)
			}
			if len(n.table.All()) > 0 || process.left() > 0 || n.opts.Pool.Stats().Pool.Allocated > 0 {
				t.Errorf("left: %v, %d processes, pool %+v", n.table.All(), process.left(), n.opts.Pool.Stats().Pool)
			}
			if got := n.host.count("create") > 0; got != reserved {
				t.Errorf("namespaces were made: %t, want %t", got, reserved)
			}
			n.mustRun(t, podSpec("b"))
		})
	}
}

func TestProcessThatDies(t *testing.T) {
	n, process := newSharingNode(t)
	rec, other := n.mustRun(t, sharingSpec("a")), n.mustRun(t, sharingSpec("b"))
	process.die(rec.ID)
	got := n.awaitPhase(t, rec.ID, PhaseStopped)
	if got.PID != 0 || !got.NetworkUp {
		t.Errorf("pid %d, network up %t: nothing but the state changes until Stop", got.PID, got.NetworkUp)
	}
	if rec, _ := n.Get(other.ID); rec.Phase != PhaseReady {
		t.Errorf("another sandbox is %s", rec.Phase)
	}
	if err := n.Stop(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	if n.host.count("del") != 1 || process.count("stop") != 1 {
		t.Errorf("Stop after the end of the process: %v, %v", n.host.calls, process.calls)
	}
}

func TestProcessThatCannotBeStopped(t *testing.T) {
	n, process := newSharingNode(t)
	rec := n.mustRun(t, sharingSpec("a"))
	process.setFail("stop")
	if err := n.Stop(t.Context(), rec.ID); !errors.Is(err, errInjected) {
		t.Fatalf("got %v, want the injected error", err)
	}
	if n.host.count("del") != 1 {
		t.Error("the network was left alone for the sake of the process")
	}
	if err := n.Remove(t.Context(), rec.ID); !errors.Is(err, errInjected) {
		t.Fatalf("Remove: got %v, want the injected error", err)
	}
	if got := n.opts.Pool.Stats().Pool.Allocated; got != 1 {
		t.Errorf("%d ranges are held while the process may have ids of one", got)
	}
	process.setFail("")
	if err := n.Remove(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	if process.left() != 0 || len(n.table.All()) != 0 {
		t.Errorf("left: %d processes, %v", process.left(), n.table.All())
	}
}

func TestRecoverProcess(t *testing.T) {
	restart := func(t *testing.T, n *node, meanwhile func()) {
		t.Helper()
		n.Close()
		meanwhile()
		n.restart(t)
		t.Cleanup(n.Close)
		for range 2 { // it is repeated until containerd answers
			if err := n.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("alive", func(t *testing.T) {
		n, process := newSharingNode(t)
		rec := n.mustRun(t, sharingSpec("a"))
		restart(t, n, func() { process.calls = nil })
		if got, _ := n.Get(rec.ID); !state.Same(got, rec) {
			t.Errorf("got %+v, want %+v", got, rec)
		}
		process.die(rec.ID)
		n.awaitPhase(t, rec.ID, PhaseStopped)
		if got := process.count("wait"); got != 1 {
			t.Errorf("%d goroutines waited for one process", got)
		}
	})
	t.Run("died meanwhile", func(t *testing.T) {
		n, process := newSharingNode(t)
		rec := n.mustRun(t, sharingSpec("a"))
		restart(t, n, func() { process.die(rec.ID) })
		if got, _ := n.Get(rec.ID); got.Phase != PhaseStopped || !got.NetworkUp {
			t.Errorf("phase %s, network up %t", got.Phase, got.NetworkUp)
		}
	})
	t.Run("half made", func(t *testing.T) {
		n, process := newSharingNode(t)
		rec, _, err := n.reserve(t.Context(), sharingSpec("a"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(n.Paths(rec.ID).Dir, 0o711); err != nil {
			t.Fatal(err)
		}
		process.running[rec.ID] = make(chan struct{})
		restart(t, n, func() {})
		if process.left() != 0 || len(n.table.All()) != 0 {
			t.Errorf("left: %d processes, %v", process.left(), n.table.All())
		}
	})
}

func TestCloseEndsWatching(t *testing.T) {
	n, process := newSharingNode(t)
	rec := n.mustRun(t, sharingSpec("a"))
	n.Close()
	if got, _ := n.Get(rec.ID); got.Phase != PhaseReady || process.left() != 1 {
		t.Errorf("after Close the sandbox is %s and %d processes run", got.Phase, process.left())
	}
}
