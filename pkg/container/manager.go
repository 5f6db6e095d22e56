// Package container keeps the life of containers: it turns a spec, an image and a sandbox into
// a mounted root filesystem, an OCI specification and a containerd task, watches the task, and
// takes everything away again. It makes no namespaces and holds no ids: those are the
// sandbox's. containerd is behind the interfaces of ports.go.
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

	"github.com/moby/locker"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/userns-shim/userns-shim/pkg/mounts"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/ocispec/qosclass"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// Sentinels that callers turn into answers.
var (
	// ErrNotFound means that no container has the id.
	ErrNotFound = errors.New("container not found")
	// ErrExists means that the name is taken in the sandbox.
	ErrExists = errors.New("container name is taken")
	// ErrAmbiguous means that several containers share the id prefix.
	ErrAmbiguous = errors.New("container id prefix is ambiguous")
	// ErrState means that the container is in a state that does not allow the operation.
	ErrState = errors.New("container is in the wrong state")
	// ErrStart means that a container's process could not be started. Other errors beside it
	// say whether that was for want of containerd or of time.
	ErrStart = errors.New("process could not be started")
	// ErrUpdate means that the limits of a running container could not be set, as ErrStart.
	ErrUpdate = errors.New("limits could not be set")
	// ErrImageVolume means that an image could not be mounted as a volume. kubelet knows its
	// text, at the beginning of a message.
	ErrImageVolume = errors.New("ImageVolumeMountFailed")
	// ErrInvalid means that the spec cannot be met in its sandbox.
	ErrInvalid = errors.New("invalid container")
	// ErrUnsupported means that this node or this sandbox cannot do what the spec asks for.
	ErrUnsupported = errors.New("not supported")
)

// Rootfs mounts root filesystems; *mounts.Mounter is one.
type Rootfs interface {
	Mount(ctx context.Context, req mounts.Request) error
	Unmount(ctx context.Context, target string) error
	MountVolume(ctx context.Context, v mounts.Volume) error
	CheckIDMappable(ctx context.Context, check mounts.Check) error
	Forget(pod string)
}

// Cgroups reads cgroups of containers by their path below the hierarchies' roots.
type Cgroups interface {
	// OOMKilled says whether the kernel has killed a process in the cgroup for want of memory.
	OOMKilled(path string) bool
}

// Handler is how one runtime handler runs containers.
type Handler struct {
	Runtime     string // containerd's name of the shim
	BinaryName  string // OCI runtime
	Snapshotter string
	Options     RuntimeOptions
	// PodAnnotations and ContainerAnnotations are patterns, as of path.Match, of the annotations that
	// the OCI runtime gets to see.
	PodAnnotations, ContainerAnnotations []string
	// PrivilegedWithoutHostDevices keeps the host's devices out of privileged containers.
	PrivilegedWithoutHostDevices bool
}

// Options are what a Manager needs; all fields are required unless they say otherwise.
type Options struct {
	DB *state.DB
	// Mirror, where it is set, has a copy of the records, of which a lost database is made again.
	Mirror    *state.Mirror
	Images    Images
	Snapshots Snapshots
	Records   Records
	Tasks     Tasks
	Inspector TaskInspector
	Execs     Execs
	Consoles  Consoles
	Updates   Updater

	Checkpoints Checkpoints
	Diffs       Diffs

	Rootfs  Rootfs
	PIDPins PIDPins
	Cgroups Cgroups
	Labels  sandbox.Labels
	// Sandbox finds the sandbox of a container as it is now.
	Sandbox func(id string) (sandbox.Record, error)
	Clock   clock.PassiveClock
	Logger  klog.Logger
	// Notify, where it is set, is told of each change after it is recorded. It must not block.
	Notify func(sandbox.Event)
	// Plugins, where it is set, look on and change containers.
	Plugins Plugins

	StateDir string
	// RootDir is on a disk. It keeps what containers write into volumes of their images.
	RootDir string
	// Handlers are the runtime handlers by name; DefaultHandler serves sandboxes that name none.
	Handlers       map[string]Handler
	DefaultHandler string
	// RecursiveReadOnly, where it is set, says whether the OCI runtime of a handler can mount so; without
	// it Host decides.
	RecursiveReadOnly func(ctx context.Context, handler string) (bool, error)
	// Host is what specifications depend on beside the container.
	Host          ocispec.Host
	SystemdCgroup bool
	// CDISpecDirs hold the files that describe CDI devices; without any, every CDI device is unknown.
	CDISpecDirs []string
	// Classes are the block I/O and RDT classes of the node.
	Classes *qosclass.Classes
	// RestoreImages lets images that hold a checkpoint be run; see Restore.
	RestoreImages bool
	// Keeper, where it is set, holds the output of containers while the daemon is down.
	Keeper FIFOKeeper
	// MaxLogLine splits longer lines of output, in bytes.
	MaxLogLine int
}

// Manager owns the containers of a node.
type Manager struct {
	opts  Options
	table *state.Table[Record]
	locks *locker.Locker // by container id: create, start, remove

	// life is that of the goroutines that watch tasks; Close ends it and waits for them.
	life     context.Context
	end      context.CancelFunc
	watchers sync.WaitGroup

	underWay underWay

	mu      sync.RWMutex
	running map[string]*process
	oom     map[string]bool
}

// New loads the recorded containers. Call Recover before serving and Close at the end.
func New(opts Options) (*Manager, error) {
	if opts.Plugins == nil {
		opts.Plugins = noPlugins{}
	}
	table, err := OpenTable(opts.DB, opts.Mirror)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		opts:    opts,
		table:   table,
		locks:   locker.New(),
		running: map[string]*process{},
		oom:     map[string]bool{},
	}
	m.life, m.end = context.WithCancel(klog.NewContext(context.Background(), opts.Logger))
	if err := m.reserveLabels(); err != nil {
		return nil, err
	}
	return m, nil
}

// OpenTable reads the records of containers. The mirror may be nil.
func OpenTable(db *state.DB, mirror *state.Mirror) (*state.Table[Record], error) {
	return state.OpenTable[Record](state.TableOptions{
		DB: db, Mirror: mirror, Rows: "containers", Names: "container-names", NotFound: ErrNotFound, Ambiguous: ErrAmbiguous,
	})
}

// SyncMirror brings the records outside of the database in line with it. Those of containers that it does not know stay while
// such a container has a directory.
func (m *Manager) SyncMirror() error {
	return m.table.SyncMirror(func(id string) bool {
		_, err := os.Lstat(m.Paths(id).Dir)
		return err == nil
	})
}

// Close stops watching; containers run on, and their output waits in the FIFOs.
func (m *Manager) Close() {
	m.end()
	m.watchers.Wait()
}

// Paths are where a container keeps its files.
type Paths struct {
	Dir    string // everything below belongs to the container
	Rootfs string
	IO     string // FIFOs
	// Volumes holds read-only views of volumes and mounted images, see Volume.
	Volumes string
	// Image is a second mount of the image while declared volumes are filled from it.
	Image string
	// Declared holds the volumes that the image declares, on a disk. See DeclaredVolume.
	Declared string
	// PIDNamespace is the pin of a target's PID namespace.
	PIDNamespace string
}

// Paths derives them from the manager's directories and the container's id.
func (m *Manager) Paths(id string) Paths {
	dir := filepath.Join(m.opts.StateDir, "containers", id)
	return Paths{
		Dir:          dir,
		Rootfs:       filepath.Join(dir, "rootfs"),
		IO:           filepath.Join(dir, "io"),
		Volumes:      filepath.Join(dir, "volumes"),
		Image:        filepath.Join(dir, "image"),
		Declared:     filepath.Join(m.opts.RootDir, "volumes", id),
		PIDNamespace: filepath.Join(dir, "pidns"),
	}
}

// Get finds a container by its id or a unique prefix of it. Containers that are still being
// made are not found.
func (m *Manager) Get(id string) (Record, error) { return m.table.Get(id) }

// Has says whether there is a container of the id, also one that is being made.
func (m *Manager) Has(id string) bool { return m.table.Has(id) }

// List returns all containers that clients can see, the oldest first.
func (m *Manager) List() []Record { return m.table.List() }

// Specification returns what containerd keeps for the container. An error wraps errdefs.ErrNotFound
// where it has lost the container.
func (m *Manager) Specification(ctx context.Context, id string) (*specs.Spec, error) {
	return m.opts.Records.RecordSpec(ctx, id)
}

// of returns every record of a sandbox.
func (m *Manager) of(sandboxID string) []Record {
	return slices.DeleteFunc(m.table.All(), func(r Record) bool { return r.SandboxID != sandboxID })
}

func (m *Manager) notify(kind sandbox.EventKind, rec Record) {
	if m.opts.Notify != nil {
		m.opts.Notify(sandbox.Event{Kind: kind, ID: rec.ID, SandboxID: rec.SandboxID, At: m.opts.Clock.Now()})
	}
}

func (m *Manager) handlerName(sb sandbox.Record) string {
	return cmp.Or(sb.Spec.RuntimeHandler, m.opts.DefaultHandler)
}

// Handler is the runtime handler of a sandbox's containers. An error wraps ErrUnsupported where the
// configuration has it no longer.
func (m *Manager) Handler(sb sandbox.Record) (Handler, error) {
	name := m.handlerName(sb)
	h, ok := m.opts.Handlers[name]
	if !ok {
		return Handler{}, fmt.Errorf("%w: runtime handler %q of sandbox %s is not configured", ErrUnsupported, name, sb.ID)
	}
	return h, nil
}
