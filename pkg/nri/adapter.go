package nri

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	nrilog "github.com/containerd/nri/pkg/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/ocispec/qosclass"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// Sandboxes are those of the node; *sandbox.Manager has them.
type Sandboxes interface {
	List() []sandbox.Record
	Get(id string) (sandbox.Record, error)
}

// Containers are those of the node; *container.Manager has them. Changes that plugins ask for are not
// put to plugins again.
type Containers interface {
	List() []container.Record
	Get(id string) (container.Record, error)
	Specification(ctx context.Context, id string) (*specs.Spec, error)
	SetResources(ctx context.Context, id string, r ocispec.Resources) error
	Evict(ctx context.Context, id string) error
}

// Options configure an Adapter; all fields are required unless they say otherwise.
type Options struct {
	// Version is that of this program, for plugins to know.
	Version string
	// Socket is where plugins connect. Empty lets none connect.
	Socket string
	// PluginDir holds plugins that are started with this program, and ConfigDir their configuration.
	PluginDir, ConfigDir string
	// RegistrationTimeout bounds a plugin's first words, and RequestTimeout its answer to each request.
	RegistrationTimeout, RequestTimeout time.Duration

	// Host, CDISpecDirs and Classes are as in container.Options.
	Host        ocispec.Host
	CDISpecDirs []string
	Classes     *qosclass.Classes
	Logger      klog.Logger
}

// ErrPlugin means that a plugin refused, failed, or asked for what a pod cannot have. The message names it.
var ErrPlugin = errors.New("NRI plugin")

// runtimeName is what plugins are told of this program.
const runtimeName = "userns-shim"

// Adapter talks to plugins. Until Start it has none.
type Adapter struct {
	opts    Options
	witness *witness
	library *adaptation.Adaptation
	socket  *socket
	life    context.Context
	end     context.CancelFunc

	later  sync.Mutex
	closed bool           // guarded by later: no work begins any more
	work   sync.WaitGroup // updates that nothing waits for

	// calls is held while plugins are asked, so that what the witness sees belongs to one request.
	calls   sync.Mutex
	node    node             // set by Start
	started bool             // plugins are asked from now on
	told    map[string]stage // guarded by calls: what plugins know, by id of sandbox or container
}

type node struct {
	sandboxes  Sandboxes
	containers Containers
}

// stage is how far plugins saw a sandbox or container. What they do not know has none.
type stage int

const (
	stageAlive stage = iota + 1
	stageStopped
)

// New returns an adapter that has neither started nor accepted a plugin. A socket that another process
// serves is left to it: Ready says so then, and plugins of PluginDir are started all the same.
func New(opts Options) (*Adapter, error) {
	a := &Adapter{opts: opts, witness: &witness{}, told: map[string]stage{}}
	a.life, a.end = context.WithCancel(klog.NewContext(context.Background(), opts.Logger))
	a.socket = claimSocket(opts.Socket)
	options := []adaptation.Option{
		adaptation.WithPluginPath(opts.PluginDir),
		adaptation.WithPluginConfigPath(opts.ConfigDir),
		adaptation.WithSocketPath(opts.Socket),
		adaptation.WithMetrics(a.witness),
	}
	if !a.socket.listens() {
		options = append(options, adaptation.WithDisabledExternalConnections())
	}
	// Settings of the whole library.
	nrilog.Set(logger{opts.Logger})
	adaptation.SetPluginRegistrationTimeout(opts.RegistrationTimeout)
	adaptation.SetPluginRequestTimeout(opts.RequestTimeout)
	var err error
	if a.library, err = adaptation.New(runtimeName, opts.Version, a.synchronize, a.updateContainers, options...); err != nil {
		return nil, fmt.Errorf("set up NRI: %w", err)
	}
	return a, nil
}

// Start starts the plugins of PluginDir and lets others connect; each is shown the node first. It comes
// once, when the node's records are true. Close follows in any case.
func (a *Adapter) Start(sandboxes Sandboxes, containers Containers) error {
	a.node = node{sandboxes: sandboxes, containers: containers}
	if err := a.library.Start(); err != nil {
		return a.socket.failed(fmt.Errorf("start NRI: %w", err))
	}
	a.calls.Lock()
	a.started = true
	a.calls.Unlock()
	// What the library started it has not counted.
	a.witness.UpdatePluginCount(unknownCount)
	return a.socket.serve()
}

// Ready is nil while plugins can connect, and where the configuration lets none.
func (a *Adapter) Ready() error { return a.socket.ready() }

// Close ends the plugins that Start started, and waits for updates that are under way.
func (a *Adapter) Close() error {
	a.calls.Lock()
	a.started = false
	a.calls.Unlock()
	a.end()
	a.later.Lock()
	a.closed = true
	a.later.Unlock()
	a.work.Wait()
	if !a.socket.ours() {
		// The library would remove the socket that another process has put in its place. Plugins
		// that were started end with their connection, which ends with this process.
		return nil
	}
	a.library.Stop()
	return nil
}

// block is the Block of both managers' interfaces.
func (a *Adapter) block() func() {
	held := a.library.BlockPluginSync()
	return held.Unblock
}
