package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/userns-shim/userns-shim/pkg/cgroups"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/image"
)

// Options configure an Engine. Address and Namespace are required.
type Options struct {
	Address   string // path of containerd's socket
	Namespace string // containerd namespace of everything that is kept there
	// DefaultSnapshotter is used where a request names none; overlayfs when empty.
	DefaultSnapshotter string
	// RegistryConfigPath lists directories of hosts.toml directories, separated by colons.
	RegistryConfigPath string
	// PinnedImages are references whose images are pinned, beside those that carry the label; a * stands for
	// any characters.
	PinnedImages []string
	// PullProgressTimeout cancels a pull that waits for a registry and received no byte for so
	// long; zero never does.
	PullProgressTimeout time.Duration
	// MaxConcurrentDownloads bounds the layers that one pull fetches at a time; 3 when zero.
	MaxConcurrentDownloads int
	// Cgroups removes those that interrupted creates of tasks leave; the machine's when nil.
	Cgroups Cgroups
	// CallTimeout bounds one call to containerd that is not known to be long; two minutes when zero.
	CallTimeout time.Duration
}

// Engine is a client of one containerd. It is safe for concurrent use.
type Engine struct {
	opts   Options
	client *client.Client
	link   *link
	pins   pins

	groups    *taskGroups
	members   *members
	socketDir atomic.Pointer[string] // where shims were seen to listen

	pulls   *flights
	layers  *keyedLock // chain ids that are being unpacked
	names   *keyedLock // ids of images whose names change
	details *imageDetails
	usage   *usageCache
	infos   *runtimeInfos
}

var (
	_ container.Images        = (*Engine)(nil)
	_ container.Snapshots     = (*Engine)(nil)
	_ container.Records       = (*Engine)(nil)
	_ container.Tasks         = (*Engine)(nil)
	_ container.TaskInspector = (*Engine)(nil)
	_ container.Execs         = (*Engine)(nil)
	_ container.Updater       = (*Engine)(nil)
	_ container.Consoles      = (*Engine)(nil)
	_ container.Checkpoints   = (*Engine)(nil)
	_ container.Diffs         = (*Engine)(nil)
	_ image.Store             = (*Engine)(nil)
)

// New returns an engine without connecting to containerd.
func New(opts Options) (*Engine, error) {
	if !filepath.IsAbs(opts.Address) {
		return nil, fmt.Errorf("containerd address %q is no absolute path: %w", opts.Address, errdefs.ErrInvalidArgument)
	}
	if opts.Namespace == "" {
		return nil, fmt.Errorf("containerd namespace is empty: %w", errdefs.ErrInvalidArgument)
	}
	if opts.Cgroups == nil {
		host, err := cgroups.New()
		if err != nil {
			return nil, err
		}
		opts.Cgroups = host
	}
	if opts.DefaultSnapshotter == "" {
		opts.DefaultSnapshotter = "overlayfs"
	}
	if opts.MaxConcurrentDownloads <= 0 {
		opts.MaxConcurrentDownloads = 3
	}
	if opts.CallTimeout <= 0 {
		opts.CallTimeout = 2 * time.Minute
	}
	l := newLink(opts.Address, opts.CallTimeout)
	c, err := client.New(opts.Address,
		client.WithDefaultNamespace(opts.Namespace),
		client.WithExtraDialOpts(l.dialOptions()))
	if err != nil {
		return nil, fmt.Errorf("make client of containerd at %s: %w", opts.Address, err)
	}
	return &Engine{
		opts:    opts,
		client:  c,
		link:    l,
		pins:    newPins(opts.PinnedImages),
		groups:  newTaskGroups(),
		members: newMembers(),
		pulls:   newFlights(),
		layers:  newKeyedLock(),
		names:   newKeyedLock(),
		details: newImageDetails(),
		usage:   newUsageCache(),
		infos:   newRuntimeInfos(),
	}, nil
}

// Close ends pulls that are under way, waits for them and closes the connection. Closing again is fine.
func (e *Engine) Close() error {
	if !e.pulls.close() {
		return nil
	}
	if err := e.client.Close(); err != nil {
		return fmt.Errorf("close connection to containerd at %s: %w", e.opts.Address, err)
	}
	return nil
}

// Ready returns nil when containerd answers, and an error that wraps errdefs.ErrUnavailable when it
// does not within five seconds.
func (e *Engine) Ready(ctx context.Context) error {
	_, err := e.Version(ctx)
	return err
}

// Version returns containerd's version, such as "v2.4.2".
func (e *Engine) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := e.client.VersionService().Version(ctx, &emptypb.Empty{})
	if err != nil {
		err = errgrpc.ToNative(err)
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("containerd at %s does not answer: %w: %w", e.opts.Address, errdefs.ErrUnavailable, err)
		}
		return "", fmt.Errorf("ask containerd for its version: %w", err)
	}
	return resp.GetVersion(), nil
}

// snapshotter returns the name, or the default's for an empty one.
func (e *Engine) snapshotter(name string) string {
	if name == "" {
		return e.opts.DefaultSnapshotter
	}
	return name
}

// cleanupTimeout bounds what is undone after an error.
const cleanupTimeout = 30 * time.Second

// cleanup returns a context for undoing work, which lives on when ctx was cancelled.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
}
