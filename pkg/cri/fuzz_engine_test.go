package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/image"
	"github.com/userns-shim/userns-shim/pkg/mounts"
	"github.com/userns-shim/userns-shim/pkg/stats"
)

// fuzzEngine stands in for containerd, the mounter and cgroups below the managers of a fuzzWorld. It keeps by
// kind and name what exists, refuses what containerd would not know, and never blocks.
type fuzzEngine struct {
	cgroups string // a directory that stands in for /sys/fs/cgroup

	mu      sync.Mutex
	things  map[string]bool // "snapshot x", "record x", ...: what left reports
	records map[string]container.EngineRecord
	tasks   map[string]*fuzzTask
	images  []image.Info
}

type fuzzTask struct {
	exited chan struct{} // closed by end
	exit   container.Exit
}

// fuzzImage is in every world; the others come by PullImage.
const fuzzImage = "docker.io/library/demo:latest"

func newFuzzEngine(cgroups string) *fuzzEngine {
	e := &fuzzEngine{
		cgroups: cgroups,
		things:  map[string]bool{},
		records: map[string]container.EngineRecord{},
		tasks:   map[string]*fuzzTask{},
	}
	e.addImage(fuzzImage, "sha256:"+fmt.Sprintf("%064d", 1))
	return e
}

func (e *fuzzEngine) addImage(name, id string) {
	config := imagespec.ImageConfig{Cmd: []string{"sh"}, User: "web", Volumes: map[string]struct{}{"/data": {}}}
	e.images = append(e.images, image.Info{ID: id, RepoTags: []string{name}, Size: 1, Config: config})
}

// left names everything that exists beside images.
func (e *fuzzEngine) left() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.things))
}

func (e *fuzzEngine) add(kind, name string) { e.things[kind+" "+name] = true }

// drop is errdefs.ErrNotFound where there is no such thing.
func (e *fuzzEngine) drop(kind, name string) error {
	key := kind + " " + name
	if !e.things[key] {
		return fmt.Errorf("%s: %w", key, errdefs.ErrNotFound)
	}
	delete(e.things, key)
	return nil
}

func (e *fuzzEngine) ResolveImage(ctx context.Context, ref, _ string) (container.Image, error) {
	info, err := e.Get(ctx, ref)
	if err != nil {
		return container.Image{}, err
	}
	return container.Image{ID: info.ID, Ref: info.ID, Name: info.RepoTags[0], Config: info.Config, RepoTags: info.RepoTags}, nil
}

func (e *fuzzEngine) PrepareSnapshot(_ context.Context, req container.SnapshotRequest) ([]mounts.Mount, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.add("snapshot", req.Key)
	return []mounts.Mount{{Type: "overlay"}}, nil
}

func (e *fuzzEngine) SnapshotMounts(context.Context, string, string) ([]mounts.Mount, error) {
	return nil, errdefs.ErrNotFound
}

func (e *fuzzEngine) RemoveSnapshot(_ context.Context, _, key string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.drop("snapshot", key)
}

func (e *fuzzEngine) CreateRecord(_ context.Context, rec container.EngineRecord) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.add("record", rec.ID)
	e.records[rec.ID] = rec
	return nil
}

func (e *fuzzEngine) DeleteRecord(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.records, id)
	return e.drop("record", id)
}

func (e *fuzzEngine) RecordSpec(_ context.Context, id string) (*specs.Spec, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	rec, ok := e.records[id]
	if !ok {
		return nil, fmt.Errorf("record %s: %w", id, errdefs.ErrNotFound)
	}
	return rec.Spec, nil
}

func (e *fuzzEngine) UpdateRecordSpec(_ context.Context, id string, spec *specs.Spec) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	rec, ok := e.records[id]
	if !ok {
		return fmt.Errorf("record %s: %w", id, errdefs.ErrNotFound)
	}
	rec.Spec = spec
	e.records[id] = rec
	return nil
}

func (e *fuzzEngine) ListRecords(context.Context, string, string) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.records)), nil
}

// CreateTask makes the cgroup too, from which stats are read.
func (e *fuzzEngine) CreateTask(_ context.Context, _, id string, _ container.Stdio) (uint32, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	rec, ok := e.records[id]
	if !ok {
		return 0, fmt.Errorf("record %s: %w", id, errdefs.ErrNotFound)
	}
	dir := filepath.Join(e.cgroups, rec.Spec.Linux.CgroupsPath)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	for file, text := range map[string]string{"cgroup.procs": "", "memory.current": "4096\n", "cpu.stat": "usage_usec 7\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return 0, err
		}
	}
	e.add("task", id)
	e.tasks[id] = &fuzzTask{exited: make(chan struct{})}
	return uint32(os.Getpid()), nil
}

func (e *fuzzEngine) task(id string) (*fuzzTask, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, ok := e.tasks[id]
	if !ok {
		return nil, fmt.Errorf("task %s: %w", id, errdefs.ErrNotFound)
	}
	return t, nil
}

func (e *fuzzEngine) StartTask(_ context.Context, id string) error {
	_, err := e.task(id)
	return err
}

func (e *fuzzEngine) WaitTask(ctx context.Context, id string) (container.Exit, error) {
	t, err := e.task(id)
	if err != nil {
		return container.Exit{}, err
	}
	select {
	case <-t.exited:
		return t.exit, nil
	case <-ctx.Done():
		return container.Exit{}, ctx.Err()
	}
}

// end lets a task exit; one that has exited already is not found, as a process.
func (e *fuzzEngine) end(id string, code uint32) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, ok := e.tasks[id]
	if !ok || !t.exit.At.IsZero() {
		return fmt.Errorf("process of task %s: %w", id, errdefs.ErrNotFound)
	}
	t.exit = container.Exit{Code: code, At: time.Now()}
	close(t.exited)
	return nil
}

func (e *fuzzEngine) KillTask(_ context.Context, id string, signal uint32, _ bool) error {
	return e.end(id, 128+signal)
}

func (e *fuzzEngine) DeleteTask(_ context.Context, _, id string) (container.Exit, error) {
	t, err := e.task(id)
	if err != nil {
		return container.Exit{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.exit.At.IsZero() {
		return container.Exit{}, fmt.Errorf("task %s runs: %w", id, errdefs.ErrFailedPrecondition)
	}
	delete(e.tasks, id)
	return t.exit, e.drop("task", id)
}

func (e *fuzzEngine) TaskState(_ context.Context, id string) (container.TaskState, error) {
	t, err := e.task(id)
	if err != nil {
		return container.TaskState{}, err
	}
	return container.TaskState{PID: 1, Status: "running", Exit: t.exit}, nil
}

func (e *fuzzEngine) ListTasks(context.Context) (map[string]container.TaskState, error) {
	return map[string]container.TaskState{}, nil
}

func (e *fuzzEngine) StartExec(_ context.Context, req container.ExecRequest) (uint32, error) {
	if _, err := e.task(req.ContainerID); err != nil {
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.add("exec", req.ExecID)
	return 43, nil
}

func (e *fuzzEngine) WaitExec(context.Context, string, string) (container.Exit, error) {
	return container.Exit{At: time.Now()}, nil
}

func (e *fuzzEngine) KillExec(context.Context, string, string, uint32) error { return nil }

func (e *fuzzEngine) DeleteExec(_ context.Context, _, execID string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.drop("exec", execID)
}

func (e *fuzzEngine) UpdateTask(_ context.Context, id string, _ *specs.LinuxResources) error {
	_, err := e.task(id)
	return err
}

func (e *fuzzEngine) Resize(context.Context, string, string, uint32, uint32) error { return nil }
func (e *fuzzEngine) CloseStdin(context.Context, string, string) error             { return nil }

// Mount fills the target with what an image has; while it is mounted its directory cannot be removed.
func (e *fuzzEngine) Mount(_ context.Context, req mounts.Request) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.add("mount", req.Target)
	for file, text := range map[string]string{"etc/passwd": "root:x:0:0::/:\nweb:x:33:33::/:\n", "etc/group": "web:x:33:\n", "data/file": "x"} {
		path := filepath.Join(req.Target, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

func (e *fuzzEngine) MountVolume(_ context.Context, v mounts.Volume) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.add("mount", v.Target)
	return os.WriteFile(v.Target, nil, 0o600)
}

// Unmount takes what is not mounted for done.
func (e *fuzzEngine) Unmount(_ context.Context, target string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.drop("mount", target) != nil {
		return nil
	}
	entries, err := os.ReadDir(target)
	if err != nil {
		return nil //nolint:nilerr // the view of a volume, which is a file
	}
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(target, entry.Name())))
	}
	return err
}

func (e *fuzzEngine) CheckIDMappable(context.Context, mounts.Check) error { return nil }
func (e *fuzzEngine) Forget(string)                                       {}

func (e *fuzzEngine) PinPID(_ int, _, path string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.add("pin", path)
	return nil
}

// OOMKilled: memory is never short here.
func (e *fuzzEngine) OOMKilled(string) bool { return false }

func (e *fuzzEngine) UnpinPID(path string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.things, "pin "+path)
	return nil
}

func (e *fuzzEngine) ReadLayer(context.Context, string, string) (stats.Layer, error) {
	return stats.Layer{Mountpoint: "/", Bytes: 1, Inodes: 1, At: time.Now()}, nil
}

// readProfile has one seccomp profile.
func (e *fuzzEngine) readProfile(path string) ([]byte, error) {
	if filepath.Base(path) == "profile.json" {
		return []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), nil
	}
	return nil, fs.ErrNotExist
}
