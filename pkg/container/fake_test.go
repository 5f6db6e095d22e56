package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/userns-shim/userns-shim/pkg/mounts"
)

var errInjected = errors.New("injected")

// fakeEngine stands in for containerd and for mounts: it keeps what exists in maps and fails the
// step named in fail.
type fakeEngine struct {
	mu        sync.Mutex
	fail      string
	failure   error // errInjected when nil
	images    map[string]Image
	snapshots map[string]bool
	records   map[string]EngineRecord
	tasks     map[string]*fakeTask
	mounted   map[string]bool
	requests  []mounts.Request // of Mount
	forgotten []string
	views     map[string]bool     // of snapshots, those that are read-only
	content   func(target string) // fills what Mount mounts
	pinned    map[string]string   // by path, the container whose PID namespace it is
	oomKilled map[string]bool     // by the last element of a cgroup's path
	signals   []uint32            // that were sent
	onStart   func(id string)     // is called when a task was started
	// ignoreTerm makes tasks outlive their stop signal.
	ignoreTerm bool
	// hung tasks have a shim that does not answer, and containerd does not list them.
	hung map[string]bool
}

type fakeTask struct {
	started bool
	exited  chan struct{}
	exit    Exit
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{
		images: map[string]Image{"busybox": {
			ID: "sha256:1", Ref: "busybox@sha256:2", Name: "busybox",
			Config: imagespec.ImageConfig{Cmd: []string{"sh"}, StopSignal: "SIGINT"},
		}},
		snapshots: map[string]bool{},
		views:     map[string]bool{},
		records:   map[string]EngineRecord{},
		tasks:     map[string]*fakeTask{},
		mounted:   map[string]bool{},
		pinned:    map[string]string{},
	}
}

func (f *fakeEngine) OOMKilled(cgroup string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.oomKilled[filepath.Base(cgroup)]
}

func (f *fakeEngine) step(name string) error {
	if f.fail == name {
		return fmt.Errorf("%s: %w", name, cmp.Or(f.failure, errInjected))
	}
	return nil
}

// left names everything that exists.
func (f *fakeEngine) left() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for id := range f.snapshots {
		out = append(out, "snapshot "+id)
	}
	for id := range f.records {
		out = append(out, "record "+id)
	}
	for id := range f.tasks {
		out = append(out, "task "+id)
	}
	for path := range f.mounted {
		out = append(out, "mount "+path)
	}
	for path := range f.pinned {
		out = append(out, "pin "+path)
	}
	slices.Sort(out)
	return out
}

// end lets the task of a container exit.
func (f *fakeEngine) end(id string, code uint32) { f.endAt(id, code, time.Unix(1_700_000_100, 0)) }

func (f *fakeEngine) endAt(id string, code uint32, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tasks[id]
	t.exit = Exit{Code: code, At: at}
	close(t.exited)
}

func (f *fakeEngine) ResolveImage(_ context.Context, ref, _ string) (Image, error) {
	img, ok := f.images[ref]
	if !ok {
		return Image{}, fmt.Errorf("image %q: %w", ref, errdefs.ErrNotFound)
	}
	return img, nil
}

func (f *fakeEngine) PrepareSnapshot(_ context.Context, req SnapshotRequest) ([]mounts.Mount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshots[req.Key] = true
	f.views[req.Key] = req.View
	if req.View {
		return []mounts.Mount{{Type: "bind"}}, f.step("view")
	}
	return []mounts.Mount{{Type: "overlay"}}, f.step("prepare")
}

func (f *fakeEngine) SnapshotMounts(context.Context, string, string) ([]mounts.Mount, error) {
	return nil, errdefs.ErrNotFound
}

func (f *fakeEngine) RemoveSnapshot(_ context.Context, _, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.snapshots[key] {
		return errdefs.ErrNotFound
	}
	delete(f.snapshots, key)
	return f.step("remove snapshot")
}

func (f *fakeEngine) CreateRecord(_ context.Context, rec EngineRecord) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records[rec.ID] = rec
	return f.step("record")
}

func (f *fakeEngine) DeleteRecord(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.records[id]; !ok {
		return errdefs.ErrNotFound
	}
	delete(f.records, id)
	return nil
}

func (f *fakeEngine) RecordSpec(_ context.Context, id string) (*specs.Spec, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records[id].Spec, nil
}

func (f *fakeEngine) ListRecords(context.Context, string, string) ([]string, error) { return nil, nil }

func (f *fakeEngine) CreateTask(_ context.Context, _, id string, _ Stdio) (uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("create task"); err != nil {
		return 0, err
	}
	f.tasks[id] = &fakeTask{exited: make(chan struct{})}
	return 42, nil
}

func (f *fakeEngine) StartTask(_ context.Context, id string) error {
	f.mu.Lock()
	f.tasks[id].started = true
	err := f.step("start task")
	f.mu.Unlock()
	if f.onStart != nil {
		f.onStart(id)
	}
	return err
}

func (f *fakeEngine) WaitTask(ctx context.Context, id string) (Exit, error) {
	f.mu.Lock()
	t, ok := f.tasks[id]
	f.mu.Unlock()
	if !ok {
		return Exit{}, errdefs.ErrNotFound
	}
	select {
	case <-t.exited:
		return t.exit, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

func (f *fakeEngine) KillTask(_ context.Context, id string, signal uint32, _ bool) error {
	f.mu.Lock()
	f.signals = append(f.signals, signal)
	t, ok := f.tasks[id]
	ignore := f.ignoreTerm && signal != killSignal
	f.mu.Unlock()
	if !ok {
		return errdefs.ErrNotFound
	}
	select {
	case <-t.exited:
		return errdefs.ErrNotFound
	default:
	}
	if !ignore {
		f.end(id, 128+signal)
	}
	return nil
}

func (f *fakeEngine) DeleteTask(_ context.Context, _, id string) (Exit, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.tasks[id]
	if !ok {
		return Exit{}, errdefs.ErrNotFound
	}
	if err := f.step("delete task"); err != nil {
		return Exit{}, err
	}
	if f.hung[id] {
		return Exit{}, errdefs.ErrUnavailable
	}
	select {
	case <-t.exited:
	default:
		if t.started {
			return Exit{}, errdefs.ErrFailedPrecondition
		}
	}
	delete(f.tasks, id)
	return t.exit, nil
}

func (f *fakeEngine) TaskState(_ context.Context, id string) (TaskState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hung[id] {
		return TaskState{}, errdefs.ErrUnavailable
	}
	if f.tasks[id] == nil {
		return TaskState{}, errdefs.ErrNotFound
	}
	return TaskState{PID: 42, Status: "running"}, nil
}

func (f *fakeEngine) ListTasks(context.Context) (map[string]TaskState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("list tasks"); err != nil {
		return nil, err
	}
	out := map[string]TaskState{}
	for id, t := range f.tasks {
		if f.hung[id] {
			continue
		}
		out[id] = TaskState{PID: 42, Status: "running", Exit: t.exit}
	}
	return out, nil
}

func (f *fakeEngine) StartExec(context.Context, ExecRequest) (uint32, error)  { return 0, errInjected }
func (f *fakeEngine) WaitExec(context.Context, string, string) (Exit, error)  { return Exit{}, nil }
func (f *fakeEngine) KillExec(context.Context, string, string, uint32) error  { return nil }
func (f *fakeEngine) DeleteExec(context.Context, string, string) error        { return nil }
func (f *fakeEngine) CheckIDMappable(_ context.Context, _ mounts.Check) error { return f.step("idmap") }

func (f *fakeEngine) Mount(_ context.Context, req mounts.Request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("mount"); err != nil {
		return err
	}
	if err := f.step("mount view"); err != nil && req.Readonly {
		return err
	}
	f.mounted[req.Target] = true
	f.requests = append(f.requests, req)
	if f.content != nil {
		f.content(req.Target)
	}
	return nil
}

func (f *fakeEngine) Unmount(_ context.Context, target string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	mounted := f.mounted[target]
	delete(f.mounted, target)
	if f.content == nil || !mounted {
		return nil
	}
	// What was mounted is gone from view; the directory below is empty.
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	return os.MkdirAll(target, 0o700)
}

func (f *fakeEngine) PinPID(_ int, id, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("pin"); err != nil {
		return err
	}
	f.pinned[path] = id
	return nil
}

func (f *fakeEngine) UnpinPID(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pinned, path)
	return nil
}

func (f *fakeEngine) Forget(pod string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgotten = append(f.forgotten, pod)
}

func (f *fakeEngine) UpdateTask(context.Context, string, *specs.LinuxResources) error {
	return f.step("update task")
}

func (f *fakeEngine) UpdateRecordSpec(_ context.Context, id string, spec *specs.Spec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := f.records[id]
	rec.Spec = spec
	f.records[id] = rec
	return nil
}

func (f *fakeEngine) MountVolume(_ context.Context, v mounts.Volume) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("volume"); err != nil {
		return err
	}
	f.mounted[v.Target] = true
	return os.WriteFile(v.Target, nil, 0o600)
}
