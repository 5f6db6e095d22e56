package podinit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
)

var errInjected = errors.New("injected")

// fakeEngine stands in for containerd and for pins: it keeps what exists and fails the step named
// in fail.
type fakeEngine struct {
	fail    string
	calls   []string
	records map[string]container.EngineRecord
	tasks   map[string]string // state by id
	pins    map[string]string // id of the task by path
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{records: map[string]container.EngineRecord{}, tasks: map[string]string{}, pins: map[string]string{}}
}

func (f *fakeEngine) step(name string) error {
	f.calls = append(f.calls, name)
	if f.fail == name {
		return fmt.Errorf("%s: %w", name, errInjected)
	}
	return nil
}

func (f *fakeEngine) left() int { return len(f.records) + len(f.tasks) + len(f.pins) }

func (f *fakeEngine) CreateRecord(_ context.Context, rec container.EngineRecord) error {
	if err := f.step("create record"); err != nil {
		return err
	}
	f.records[rec.ID] = rec
	return nil
}

func (f *fakeEngine) DeleteRecord(_ context.Context, id string) error {
	if err := f.step("delete record"); err != nil {
		return err
	}
	if _, ok := f.records[id]; !ok {
		return errdefs.ErrNotFound
	}
	delete(f.records, id)
	return nil
}

func (f *fakeEngine) CreateTask(_ context.Context, group, id string, io container.Stdio) (uint32, error) {
	if err := f.step("create task"); err != nil {
		return 0, err
	}
	if _, ok := f.records[id]; !ok || group != id || io != (container.Stdio{}) {
		return 0, fmt.Errorf("task %s of group %s with %+v", id, group, io)
	}
	f.tasks[id] = "created"
	return 4711, nil
}

func (f *fakeEngine) StartTask(_ context.Context, id string) error {
	if err := f.step("start task"); err != nil {
		return err
	}
	f.tasks[id] = "running"
	return nil
}

// find is how containerd answers for a task that it does not have.
func (f *fakeEngine) find(id string) error {
	if _, ok := f.tasks[id]; !ok {
		return errdefs.ErrNotFound
	}
	return nil
}

func (f *fakeEngine) KillTask(_ context.Context, id string, signal uint32, _ bool) error {
	if err := errors.Join(f.step("kill task"), f.find(id)); err != nil {
		return err
	}
	if f.tasks[id] == "stopped" {
		return errdefs.ErrNotFound
	}
	if signal == killSignal {
		f.tasks[id] = "stopped"
	}
	return nil
}

func (f *fakeEngine) WaitTask(_ context.Context, id string) (container.Exit, error) {
	if err := errors.Join(f.step("wait task"), f.find(id)); err != nil {
		return container.Exit{}, err
	}
	if f.tasks[id] != "stopped" {
		return container.Exit{}, fmt.Errorf("waits for ever for a task that is %s", f.tasks[id])
	}
	return container.Exit{Code: 137}, nil
}

func (f *fakeEngine) DeleteTask(_ context.Context, _, id string) (container.Exit, error) {
	if err := errors.Join(f.step("delete task"), f.find(id)); err != nil {
		return container.Exit{}, err
	}
	if f.tasks[id] == "running" {
		return container.Exit{}, errdefs.ErrFailedPrecondition
	}
	delete(f.tasks, id)
	return container.Exit{}, nil
}

func (f *fakeEngine) PinPID(pid int, id, path string) error {
	if err := f.step("pin"); err != nil {
		return err
	}
	if pid != 4711 || f.tasks[id] != "created" {
		return fmt.Errorf("process %d of a task that is %q", pid, f.tasks[id])
	}
	f.pins[path] = id
	return nil
}

func (f *fakeEngine) UnpinPID(path string) error {
	delete(f.pins, path)
	return f.step("unpin")
}

func (f *fakeEngine) CheckPID(pid int, id, path string) error {
	if pid != 4711 || f.pins[path] != id {
		return errors.New("not there")
	}
	return nil
}

func (f *fakeEngine) AwaitExit(context.Context, int, string) error { return f.step("await") }

// newRunner returns a runner on a node that has the program.
func newRunner(t *testing.T) (*Runner, *fakeEngine) {
	t.Helper()
	dir, engine := t.TempDir(), newFakeEngine()
	program := filepath.Join(dir, "userns-shim-init")
	if err := os.WriteFile(program, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{
		Records: engine, Tasks: engine, Pins: engine,
		Program: program, StateDir: dir,
		Handlers:       map[string]container.Handler{"runc": {Runtime: "io.containerd.runc.v2", BinaryName: "runc", Snapshotter: "overlayfs"}},
		DefaultHandler: "runc",
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, engine
}

func sandboxRecord() sandbox.Record {
	return sandbox.Record{
		ID:    "5a4db0",
		Range: &idpool.Range{Start: 1 << 20, Length: idpool.Unit},
		Pins:  ns.Pins{User: "/run/u", Network: "/run/n", IPC: "/run/i", UTS: "/run/t"},
		Spec: sandbox.Spec{
			Metadata:     sandbox.Metadata{Name: "web", Namespace: "shop", UID: "0a1b"},
			Labels:       map[string]string{"app": "web", "io.cri-containerd.kind": "container"},
			CgroupParent: "/kubepods/pod0a1b",
		},
	}
}

func TestStartAndStop(t *testing.T) {
	r, engine := newRunner(t)
	rec := sandboxRecord()
	pid, err := r.Start(t.Context(), rec)
	if err != nil {
		t.Fatal(err)
	}
	rec.PID = pid
	if engine.tasks[rec.ID] != "running" || engine.pins[sandbox.PathsOf(r.opts.StateDir, rec.ID).PID] != rec.ID {
		t.Errorf("tasks %v, pins %v", engine.tasks, engine.pins)
	}
	if err := r.Check(rec); err != nil {
		t.Error(err)
	}
	got := engine.records[rec.ID]
	want := map[string]string{
		"app": "web", "io.cri-containerd.kind": "sandbox",
		"io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "0a1b",
	}
	for key, value := range want {
		if got.Labels[key] != value {
			t.Errorf("label %s is %q, want %q", key, got.Labels[key], value)
		}
	}
	if got.SnapshotKey != "" || got.Image != "" || got.Runtime != "io.containerd.runc.v2" || got.BinaryName != "runc" {
		t.Errorf("record is %+v", got)
	}
	if got.Spec.Linux.CgroupsPath != "/kubepods/pod0a1b/5a4db0" || got.Spec.Annotations[ocispec.AnnotationSandboxID] != rec.ID {
		t.Errorf("cgroup %s, annotations %v", got.Spec.Linux.CgroupsPath, got.Spec.Annotations)
	}
	for range 2 {
		if err := r.Stop(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	if engine.left() > 0 {
		t.Errorf("left: %v, %v, %v", engine.records, engine.tasks, engine.pins)
	}
}

// The root filesystem has all that the OCI runtime wants to find, and nothing that it would have to
// make in a directory of the host.
func TestRootfs(t *testing.T) {
	r, engine := newRunner(t)
	rec := sandboxRecord()
	for _, id := range []string{"one", "two"} {
		rec.ID = id
		if _, err := r.Start(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	root := engine.records["one"].Spec.Root.Path
	if root != engine.records["two"].Spec.Root.Path {
		t.Error("two processes have two root filesystems")
	}
	for _, m := range engine.records["one"].Spec.Mounts {
		info, err := os.Stat(filepath.Join(root, m.Destination))
		if err != nil {
			t.Errorf("mount point of %s: %v", m.Destination, err)
			continue
		}
		if program := m.Destination == ocispec.InitProgram; info.IsDir() == program {
			t.Errorf("mount point %s is a %s", m.Destination, info.Mode().Type())
		}
		if !info.IsDir() && info.Size() > 0 {
			t.Errorf("%s holds %d bytes of its own", m.Destination, info.Size())
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != len(engine.records["one"].Spec.Mounts) {
		t.Errorf("the root filesystem has %v, %v", entries, err)
	}
}

// Stop takes away what a start left, however far that came.
func TestStartThatFails(t *testing.T) {
	for _, step := range []string{"create record", "create task", "pin", "start task"} {
		t.Run(step, func(t *testing.T) {
			r, engine := newRunner(t)
			engine.fail = step
			if _, err := r.Start(t.Context(), sandboxRecord()); !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want the injected error", err)
			}
			engine.fail = ""
			if err := r.Stop(t.Context(), sandboxRecord()); err != nil {
				t.Fatal(err)
			}
			if engine.left() > 0 {
				t.Errorf("left: %v, %v, %v", engine.records, engine.tasks, engine.pins)
			}
		})
	}
	r, engine := newRunner(t)
	rec := sandboxRecord()
	rec.Spec.RuntimeHandler = "kata"
	if _, err := r.Start(t.Context(), rec); !errors.Is(err, sandbox.ErrUnknownHandler) || engine.left() > 0 {
		t.Errorf("unknown runtime handler: got %v", err)
	}
}

// A task keeps its record until it is gone: containerd finds it by nothing else.
func TestStopThatFails(t *testing.T) {
	for _, step := range []string{"kill task", "wait task", "delete task", "delete record", "unpin"} {
		t.Run(step, func(t *testing.T) {
			r, engine := newRunner(t)
			if _, err := r.Start(t.Context(), sandboxRecord()); err != nil {
				t.Fatal(err)
			}
			engine.fail = step
			if err := r.Stop(t.Context(), sandboxRecord()); !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want the injected error", err)
			}
			if len(engine.tasks) > 0 && len(engine.records) == 0 {
				t.Error("the record went before its task")
			}
			if len(engine.pins) > 0 && step != "unpin" {
				t.Error("the pin was left for the sake of the task")
			}
			engine.fail = ""
			if err := r.Stop(t.Context(), sandboxRecord()); err != nil || engine.left() > 0 {
				t.Errorf("again: %v; left: %v, %v, %v", err, engine.records, engine.tasks, engine.pins)
			}
		})
	}
}

func TestStopOfWhatHasExited(t *testing.T) {
	r, engine := newRunner(t)
	if _, err := r.Start(t.Context(), sandboxRecord()); err != nil {
		t.Fatal(err)
	}
	engine.tasks["5a4db0"] = "stopped"
	if err := r.Stop(t.Context(), sandboxRecord()); err != nil || engine.left() > 0 {
		t.Errorf("%v; left: %v, %v", err, engine.records, engine.tasks)
	}
	if !slices.Contains(engine.calls, "delete task") {
		t.Error("nobody deleted the task")
	}
}

func TestReady(t *testing.T) {
	r, _ := newRunner(t)
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
	for _, spoil := range []func() error{
		func() error { return os.Chmod(r.opts.Program, 0o750) },
		func() error { return os.Remove(r.opts.Program) },
		func() error { return os.Mkdir(r.opts.Program, 0o755) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		err := r.Ready()
		if !errors.Is(err, sandbox.ErrNoProcess) || !strings.Contains(err.Error(), r.opts.Program) || !strings.Contains(err.Error(), "sandboxInit") {
			t.Errorf("got %v, want ErrNoProcess that names the program and the remedy", err)
		}
	}
	if _, err := New(Options{StateDir: "/run"}); err == nil {
		t.Error("a runner without a program")
	}
}
