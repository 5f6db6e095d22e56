package labnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Namespace is the containerd namespace that a lab node uses, as on a real node.
const Namespace = "k8s.io"

// startTimeout bounds how long a daemon may take until it answers; a loaded machine of two cores needs
// a few seconds.
const startTimeout = 60 * time.Second

// ContainerdOptions say how to run a private containerd.
type ContainerdOptions struct {
	Tools Tools
	// Dir receives everything that it writes. Its path is at most 30 bytes long, because a unix
	// socket's path is at most 107.
	Dir string
	// World is where it runs; nil means the caller's namespaces.
	World *World
	// WithCRI turns on containerd's own CRI plugin.
	WithCRI bool
	// SearchPath is the PATH of containerd and its shims; empty means the tools and then the machine's.
	SearchPath string
	// ExtraConfig is appended to its configuration file (TOML, version 3).
	ExtraConfig string
}

// Containerd is a containerd of the lab's own. Its methods are not safe for concurrent use.
type Containerd struct {
	Root    string // persistent data; below it are the snapshots
	State   string
	Address string // path of the socket
	Log     string

	opts ContainerdOptions
	service
}

// StartContainerd starts a containerd and waits until it answers. Close ends it and its shims.
func StartContainerd(ctx context.Context, opts ContainerdOptions) (*Containerd, error) {
	if err := opts.Tools.Check("containerd", "containerd-shim-runc-v2", "runc"); err != nil {
		return nil, fmt.Errorf("find containerd: %w", err)
	}
	c := &Containerd{
		Root:    filepath.Join(opts.Dir, "root"),
		State:   filepath.Join(opts.Dir, "state"),
		Address: filepath.Join(opts.Dir, "c.sock"),
		Log:     filepath.Join(opts.Dir, "containerd.log"),
		opts:    opts,
	}
	for _, dir := range []string{opts.Dir, c.shimSockets()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make directory for containerd: %w", err)
		}
	}
	// Layers are read through 0755 directories by the containers' own users.
	if err := os.Chmod(opts.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("open directory of containerd: %w", err)
	}
	if err := c.Configure(func(*ContainerdOptions) {}); err != nil {
		return nil, err
	}
	return c, c.Start(ctx)
}

func (c *Containerd) shimSockets() string { return filepath.Join(c.opts.Dir, "s") }

// Configure changes its options from the next Start on; Dir stays.
func (c *Containerd) Configure(change func(*ContainerdOptions)) error {
	change(&c.opts)
	if err := os.WriteFile(c.ConfigPath(), []byte(c.config()), 0o644); err != nil {
		return fmt.Errorf("write containerd configuration: %w", err)
	}
	return nil
}

// ConfigPath is its configuration file.
func (c *Containerd) ConfigPath() string { return filepath.Join(c.opts.Dir, "containerd.toml") }

func (c *Containerd) config() string {
	disabled := `"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", "io.containerd.nri.v1.nri"`
	if c.opts.WithCRI {
		disabled = `"io.containerd.nri.v1.nri"`
	}
	return fmt.Sprintf(`version = 3
root = %q
state = %q
imports = []
disabled_plugins = [%s]

[grpc]
  address = %q

[debug]
  level = "info"

[plugins.'io.containerd.internal.v1.opt']
  path = %q

[plugins.'io.containerd.shim.v1.manager']
  socket_dir = %q

%s`, c.Root, c.State, disabled, c.Address, filepath.Join(c.opts.Dir, "opt"), c.shimSockets(), c.opts.ExtraConfig)
}

// Start starts a stopped or killed containerd again on the same directories.
func (c *Containerd) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return c.launch(ctx, c.opts.World, command{
		name: "containerd",
		path: c.opts.Tools.Path("containerd"),
		args: []string{"--config", c.ConfigPath()},
		env:  []string{cmp.Or(c.searchPath(), c.opts.Tools.searchPath())},
		log:  c.Log,
	}, c.answers)
}

func (c *Containerd) searchPath() string {
	if c.opts.SearchPath == "" {
		return ""
	}
	return "PATH=" + c.opts.SearchPath
}

func (c *Containerd) answers(ctx context.Context) error {
	conn, err := c.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = versionapi.NewVersionClient(conn).Version(ctx, &emptypb.Empty{})
	return err
}

// Dial opens a gRPC connection to its socket.
func (c *Containerd) Dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+c.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// Close ends the daemon, and then every shim and container that it left behind.
func (c *Containerd) Close(ctx context.Context) error {
	return errors.Join(c.proc.stop(ctx), killMarked(ctx, c.opts.Dir))
}
