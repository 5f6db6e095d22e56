package container

import (
	"context"
	"io"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/mounts"
)

// Image is an image that is present and unpacked.
type Image struct {
	ID          string // sha256:<digest of the image's config>
	Ref         string // what ContainerStatus reports as image_ref: a repo digest, or ID where there is none
	Name        string // name of the containerd image record that holds the content
	Size        int64  // bytes of content
	Config      imagespec.ImageConfig
	RepoTags    []string
	RepoDigests []string
	// Annotations are those of the image's manifest.
	Annotations map[string]string
}

// Images resolves what CreateContainer names.
type Images interface {
	// ResolveImage finds a present image by id, name or digest; an error that wraps
	// errdefs.ErrNotFound where there is none. It unpacks into the snapshotter if needed.
	ResolveImage(ctx context.Context, ref, snapshotter string) (Image, error)
}

// SnapshotRequest asks for a snapshot over an image's layers, which is writable unless it is a view.
type SnapshotRequest struct {
	Snapshotter string
	Key         string // the container's id, or derived from it
	ImageID     string
	View        bool
	Labels      map[string]string
}

// Snapshots is what a container needs from the snapshotter. A missing snapshot is an error
// that wraps errdefs.ErrNotFound.
type Snapshots interface {
	// PrepareSnapshot makes the snapshot, held against garbage collection for at least an hour
	// by a lease that CreateRecord with the key removes.
	PrepareSnapshot(ctx context.Context, req SnapshotRequest) ([]mounts.Mount, error)
	// SnapshotMounts returns an existing snapshot's mounts again.
	SnapshotMounts(ctx context.Context, snapshotter, key string) ([]mounts.Mount, error)
	// RemoveSnapshot removes snapshot and lease.
	RemoveSnapshot(ctx context.Context, snapshotter, key string) error
}

// EngineRecord is a container record in containerd. Its SnapshotKey stays empty, because
// containerd would add rootfs mounts of its own; a gc.ref label holds the snapshot.
type EngineRecord struct {
	ID            string
	Image         string // name of the image record
	Snapshotter   string
	SnapshotKey   string   // goes into the label containerd.io/gc.ref.snapshot.<snapshotter>
	ViewKeys      []string // more snapshots that the record holds, in labels of the same kind
	Runtime       string   // io.containerd.runc.v2
	BinaryName    string   // OCI runtime binary, option of the runc shim
	Options       RuntimeOptions
	SystemdCgroup bool
	// Group names the shim that serves the container, together with others of that group; empty
	// means the sandbox's own.
	Group  string
	Labels map[string]string
	Spec   *specs.Spec
}

// RuntimeOptions are those of the runc shim that a runtime handler sets. Empty ones are the shim's own.
type RuntimeOptions struct {
	Root       string // directory of the OCI runtime's state
	ShimCgroup string // cgroup that shims are put into
}

// Records creates and deletes container records in containerd.
type Records interface {
	CreateRecord(ctx context.Context, rec EngineRecord) error
	DeleteRecord(ctx context.Context, id string) error
	// RecordSpec returns the specification that the record was created with.
	RecordSpec(ctx context.Context, id string) (*specs.Spec, error)
	// ListRecords returns the ids of all records that carry the label selector key=value.
	ListRecords(ctx context.Context, label, value string) ([]string, error)
}

// StoredRecord is what containerd has of a container record that CreateRecord made.
type StoredRecord struct {
	ID          string
	Image       string // name of the image record
	Snapshotter string
	Group       string // the shim's
	Labels      map[string]string
	CreatedAt   time.Time
	Spec        *specs.Spec
}

// Stdio are FIFO paths that the shim opens; an empty path means /dev/null. UID and GID are
// host ids that own the pipes of the process, so that it may reopen /dev/stderr.
type Stdio struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
	UID, GID              uint32
}

// Exit is how a process ended.
type Exit struct {
	Code uint32
	At   time.Time
}

// TaskState is what containerd says of a task.
type TaskState struct {
	PID    uint32
	Status string // created, running, stopped, paused
	Exit   Exit   // set when stopped
}

// Tasks runs container processes. A missing task is an error that wraps errdefs.ErrNotFound.
type Tasks interface {
	// CreateTask creates the task of the record id in the shim of group (the sandbox id), and returns its pid.
	CreateTask(ctx context.Context, group, id string, io Stdio) (pid uint32, err error)
	StartTask(ctx context.Context, id string) error
	// WaitTask blocks until the task has exited; it survives a restart of containerd.
	WaitTask(ctx context.Context, id string) (Exit, error)
	KillTask(ctx context.Context, id string, signal uint32, all bool) error
	// DeleteTask deletes an exited task and, when it was the last of its group, waits until the
	// group's shim is gone. A task that never started is killed first.
	DeleteTask(ctx context.Context, group, id string) (Exit, error)
}

// TaskInspector reads the state of tasks, for status and for recovery.
type TaskInspector interface {
	TaskState(ctx context.Context, id string) (TaskState, error)
	ListTasks(ctx context.Context) (map[string]TaskState, error)
}

// ExecRequest is one more process in a running task.
type ExecRequest struct {
	ContainerID string
	ExecID      string
	Process     *specs.Process
	Stdio       Stdio
}

// Execs runs more processes in a container.
type Execs interface {
	StartExec(ctx context.Context, req ExecRequest) (pid uint32, err error)
	WaitExec(ctx context.Context, containerID, execID string) (Exit, error)
	KillExec(ctx context.Context, containerID, execID string, signal uint32) error
	DeleteExec(ctx context.Context, containerID, execID string) error
}

// Updater changes containers that exist. What is missing is an error that wraps errdefs.ErrNotFound.
type Updater interface {
	// UpdateTask sets the limits of the task's cgroup.
	UpdateTask(ctx context.Context, id string, resources *specs.LinuxResources) error
	UpdateRecordSpec(ctx context.Context, id string, spec *specs.Spec) error
}

// Consoles acts on the terminal or stdin of a process; execID is empty for the container's first.
type Consoles interface {
	// Resize sets the terminal's size in characters.
	Resize(ctx context.Context, containerID, execID string, width, height uint32) error
	// CloseStdin ends stdin, which the shim holds open beside the client.
	CloseStdin(ctx context.Context, containerID, execID string) error
}

// Dump says where CRIU writes a task to, or reads it from: images, and its logs.
type Dump struct {
	ID     string
	Images string
	Work   string
}

// Checkpoints freezes tasks, has CRIU write them to disk, and runs them from there again.
type Checkpoints interface {
	// PauseTask freezes all processes of a task; ResumeTask thaws them, also when they are not frozen.
	PauseTask(ctx context.Context, id string) error
	ResumeTask(ctx context.Context, id string) error
	// DumpTask writes a task's processes and lets them go on as they were, frozen or not. It is not
	// cancelled with ctx.
	DumpTask(ctx context.Context, d Dump) error
	// RestoreTask is CreateTask and StartTask from what DumpTask wrote.
	RestoreTask(ctx context.Context, group string, io Stdio, d Dump) (pid uint32, err error)
	// CanCheckpoint says whether an OCI runtime knows checkpoints.
	CanCheckpoint(ctx context.Context, runtime, binary string) (bool, error)
}

// Diffs reads and writes what a snapshot has over its image, as a tar archive like a layer of it, with
// the owners that are on disk.
type Diffs interface {
	ReadDiff(ctx context.Context, snapshotter, key string, w io.Writer) error
	ApplyDiff(ctx context.Context, snapshotter, key string, r io.Reader) error
	// ReadLayers passes on each layer of an image, uncompressed.
	ReadLayers(ctx context.Context, imageID string, each func(layer io.Reader) error) error
}

// FIFOKeeper keeps FIFOs open beyond the daemon's life. Names are ids of containers; keeping and
// releasing are idempotent.
type FIFOKeeper interface {
	Keep(name string, paths ...string) error
	Release(name string) error
}
