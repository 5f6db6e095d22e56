// Package sandbox keeps the life of pod sandboxes: their host ids, namespaces, network and
// files, from bring-up over recovery to teardown. It knows neither CRI's messages nor
// containerd; the containers of a sandbox are stopped and removed by its callers first.
package sandbox

import (
	"context"
	"errors"
	"sync"

	"github.com/moby/locker"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// Sentinels that callers turn into answers.
var (
	// ErrNotFound means that no sandbox has the id.
	ErrNotFound = errors.New("pod sandbox not found")
	// ErrExists means that the name is taken by a sandbox with another spec or in another phase.
	ErrExists = errors.New("pod sandbox name is taken")
	// ErrAmbiguous means that several sandboxes share the id prefix.
	ErrAmbiguous = errors.New("pod sandbox id prefix is ambiguous")
	// ErrNotReady means that the sandbox is not in PhaseReady.
	ErrNotReady = errors.New("pod sandbox is not ready")
	// ErrUnknownHandler means that no runtime handler has the name.
	ErrUnknownHandler = errors.New("unknown runtime handler")
	// ErrNoUserNamespaces means that the runtime handler gives no user namespaces.
	ErrNoUserNamespaces = errors.New("runtime handler gives no user namespaces")
	// ErrConflict means that the requested mapping cannot be claimed and policy forbids another.
	ErrConflict = errors.New("requested user namespace mapping conflicts")
)

// Pinner makes and removes the namespaces that a pod owns; package ns does it for real.
type Pinner interface {
	Create(ctx context.Context, req ns.Request) (ns.Pins, error)
	WriteSysctls(ctx context.Context, pins ns.Pins, user *ns.IDMap, sysctls map[string]string) error
	Remove(ctx context.Context, dir, netPath string) error
	Check(pins ns.Pins, user *ns.IDMap) error
}

// Network attaches a network namespace to the pod network. Teardown of what is not there is done.
type Network interface {
	Setup(ctx context.Context, pod network.Pod) (network.Result, error)
	Teardown(ctx context.Context, pod network.Pod) error
}

// Options are what a Manager needs; all fields are required unless they say otherwise.
type Options struct {
	DB *state.DB
	// Mirror, where it is set, has a copy of the records, of which a lost database is made again.
	Mirror *state.Mirror
	Pool   *idpool.Pool
	// Look makes the pool's witness look at the node.
	Look       func(context.Context) error
	Namespaces Pinner
	Network    Network
	Process    Process
	Labels     Labels
	StateDir   string
	BootID     string
	Clock      clock.PassiveClock
	Logger     klog.Logger
	// UserNamespaces is the policy of each runtime handler by name.
	UserNamespaces map[string]UserNamespacePolicy
	// IDs are what pods of a runtime handler may ask for by annotations, by its name; none where it has no entry.
	IDs map[string]IDLimits
	// CheckUserNamespaces, where it is set, is nil when pods of the handler can have a user namespace on
	// this node, and else wraps ErrNoUserNamespaces where the node is why.
	CheckUserNamespaces func(ctx context.Context, handler string) error
	// PodsPerShim is how many pods of a handler share a shim; less than two means none.
	PodsPerShim map[string]int
	// DefaultHandler serves specs without a runtime handler.
	DefaultHandler string
	// RejectConflicts refuses a pod whose mapping cannot be claimed, instead of giving it another.
	RejectConflicts bool
	// Notify, where it is set, is told of each change after it is recorded. It must not block.
	Notify func(Event)
	// ObserveLease, where it is set, is told how each request for ids went.
	ObserveLease func(Lease)
	// ObserveRelease, where it is set, is told of each range that a sandbox gave back.
	ObserveRelease func(pod Metadata, r idpool.Range)
	// Plugins, where it is set, look on.
	Plugins Plugins
	// UnprivilegedPorts and UnprivilegedICMP open those to every process of a pod network.
	UnprivilegedPorts, UnprivilegedICMP bool
}

// UserNamespacePolicy says which pods of a handler get a user namespace.
type UserNamespacePolicy string

// The policies, as in the configuration file.
const (
	UserNamespacesOptIn  UserNamespacePolicy = "optIn"
	UserNamespacesAlways UserNamespacePolicy = "always"
	UserNamespacesNever  UserNamespacePolicy = "never"
)

// Manager owns the sandboxes of a node.
type Manager struct {
	opts  Options
	table *state.Table[Record]
	locks *locker.Locker

	// life is that of the goroutines that watch processes; Close ends it and waits for them.
	life     context.Context
	end      context.CancelFunc
	watchers sync.WaitGroup

	mu      sync.Mutex
	watched map[string]bool // sandboxes whose process a goroutine waits for
}

// New loads the recorded sandboxes. Call Recover before serving and Close at the end.
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
		watched: map[string]bool{},
	}
	m.life, m.end = context.WithCancel(klog.NewContext(context.Background(), opts.Logger))
	if err := m.reserveLabels(); err != nil {
		return nil, err
	}
	return m, nil
}

// Close stops watching; pods run on.
func (m *Manager) Close() {
	m.end()
	m.watchers.Wait()
}

// Paths are where the sandbox id keeps its files.
func (m *Manager) Paths(id string) Paths { return PathsOf(m.opts.StateDir, id) }

// Get finds a sandbox by its id or a unique prefix of it. Sandboxes that are still being made
// are not found.
func (m *Manager) Get(id string) (Record, error) { return m.table.Get(id) }

// Has says whether there is a sandbox of the id, also one that is being made.
func (m *Manager) Has(id string) bool { return m.table.Has(id) }

// All returns every record, of sandboxes that are being made too, in no order.
func (m *Manager) All() []Record { return m.table.All() }

// List returns all sandboxes that clients can see, the oldest first.
func (m *Manager) List() []Record { return m.table.List() }
