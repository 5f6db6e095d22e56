package labnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/leaks"
)

// DirEnv names the directory below which nodes are made, instead of /tmp: a short path on a file system that
// can be an overlay's upper layer and be mounted idmapped.
const DirEnv = "USERNS_SHIM_LAB_DIR"

// dirPrefix begins the name of every node's directory and cgroup.
const dirPrefix = "usl-"

// closeTimeout bounds the cleanup after a start that went wrong.
const closeTimeout = 60 * time.Second

// Options describe a node.
type Options struct {
	Tools Tools
	// Binary is the userns-shim to run; empty means the one among Tools.
	Binary string
	// PoolRanges and KubeletRanges are the sizes of the two segments; zero means half of RangesPerNode. Where both together are
	// more than that the node owns as many times RangesPerNode as they need.
	PoolRanges, KubeletRanges uint32
	// NoCNI leaves the network configuration directory empty; WriteCNI fills it later.
	NoCNI bool
	// NoDaemon leaves userns-shim to be started later by Daemon.Start.
	NoDaemon bool
	// Daemon carries the rest of userns-shim's settings. Its extents are set by Start.
	Daemon DaemonOptions
	// Containerd carries settings of containerd; its Tools, Dir and World are set by Start.
	Containerd ContainerdOptions
}

func (o Options) poolRanges() uint32 { return cmp.Or(o.PoolRanges, RangesPerNode/2) }

func (o Options) kubeletRanges() uint32 { return cmp.Or(o.KubeletRanges, RangesPerNode/2) }

// Node is a running lab node.
type Node struct {
	Name       string // also of its cgroup, at the top of every hierarchy
	Dir        string
	CertsDir   string // hosts.toml directories
	World      *World
	Registry   *labimage.Registry
	Containerd *Containerd
	Daemon     *Daemon
	IDs        Extent // all host ids that pods of this node can have

	tools   Tools
	binary  string
	network network
	kubelet *Kubelet // nil on a node without
	ids     *idBlock
	lock    *os.File
	closed  bool
}

// Start brings up a node: world, registry (empty), containerd, userns-shim. Close ends it.
func Start(ctx context.Context, opts Options) (*Node, error) {
	node, err := prepare(opts)
	if err != nil {
		return nil, err
	}
	if err := node.bringUp(ctx, opts); err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("start lab node %s: %w", node.Name, err), node.Close(clean))
	}
	return node, nil
}

// prepare makes the directory, which is all that Close needs to be of use.
func prepare(opts Options) (*Node, error) {
	base := os.Getenv(DirEnv)
	if base == "" {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("make directory of a lab node: %w", err)
	}
	node := &Node{
		Name:     filepath.Base(dir),
		Dir:      dir,
		CertsDir: filepath.Join(dir, "certs.d"),
		tools:    opts.Tools,
		binary:   opts.Binary,
		network:  newNetwork(dir),
	}
	if node.binary == "" {
		node.binary = opts.Tools.Path("userns-shim")
	}
	return node, nil
}

func (n *Node) bringUp(ctx context.Context, opts Options) error {
	var err error
	// Pods' users walk through this directory, as they do through a node's /var/lib.
	if err := os.Chmod(n.Dir, 0o755); err != nil {
		return fmt.Errorf("open the node's directory: %w", err)
	}
	// Sweep of another package finds the file locked, or not at all.
	file := filepath.Join(n.Dir, lockFile)
	if n.lock, err = tryLock(file + ".new"); err != nil || n.lock == nil {
		return errors.Join(err, fmt.Errorf("lock the node's directory %s", n.Dir))
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("show the lock of the node's directory: %w", err)
	}
	if n.ids, err = acquireIDs((opts.kubeletRanges() + opts.poolRanges() + RangesPerNode - 1) / RangesPerNode); err != nil {
		return err
	}
	n.IDs = n.ids.Extent
	if n.World, err = NewWorld(); err != nil {
		return err
	}
	if err := n.startRegistry(); err != nil {
		return err
	}
	if err := n.network.write(opts.NoCNI); err != nil {
		return err
	}
	engine := opts.Containerd
	engine.Tools, engine.Dir, engine.World = opts.Tools, filepath.Join(n.Dir, "c"), n.World
	if n.Containerd, err = StartContainerd(ctx, engine); err != nil {
		return err
	}
	daemon := opts.Daemon
	daemon.Kubelet, daemon.Pool = n.segments(opts)
	if n.Daemon, err = newDaemon(n, daemon); err != nil {
		return err
	}
	if opts.NoDaemon {
		return nil
	}
	return n.Daemon.Start(ctx)
}

func (n *Node) startRegistry() error {
	var listener net.Listener
	listener, err := n.World.Listen()
	if err != nil {
		return fmt.Errorf("listen in the lab world: %w", err)
	}
	if n.Registry, err = labimage.NewRegistry(listener); err != nil {
		return err
	}
	return labimage.WriteHosts(n.CertsDir, n.Registry.Addr(), n.Registry.Addr())
}

// segments splits the node's ids: kubelet's part first, the pool's own after it.
func (n *Node) segments(opts Options) (kubelet, pool Extent) {
	kubelet = Extent{Start: n.IDs.Start, Length: opts.kubeletRanges() * IDsPerRange}
	return kubelet, Extent{Start: kubelet.Start + kubelet.Length, Length: opts.poolRanges() * IDsPerRange}
}

// Kubelet and Pool are the two segments of the node's ids.
func (n *Node) Kubelet() Extent { return n.Daemon.opts.Kubelet }

// Pool is the segment from which userns-shim acquires.
func (n *Node) Pool() Extent { return n.Daemon.opts.Pool }

// WriteCNI writes the pod network's configuration on a node that was started without.
func (n *Node) WriteCNI() error { return n.network.write(false) }

// CNIConfDir is the directory of the pod network's configuration.
func (n *Node) CNIConfDir() string { return n.network.confDir }

// Cgroup is the pods' cgroup parent, as CRI's cgroup_parent wants it.
func (n *Node) Cgroup() string { return "/" + n.Name }

// MetricsURL is where userns-shim serves metrics; it is reached through World.HTTPClient.
func (n *Node) MetricsURL() string { return "http://" + metricsAddr + "/metrics" }

// LeakScope says where this node's things are. The containerd connection is the caller's to make and close.
func (n *Node) LeakScope() leaks.Scope {
	return leaks.Scope{
		Namespaces:          n.World,
		MountRoots:          []string{n.Dir, "/run/netns", "/run/containerd", "/run/userns-shim"},
		StateDirs:           []string{n.Daemon.State, n.Containerd.State, n.Containerd.shimSockets(), "/run/containerd"},
		NetNSDir:            "/run/netns",
		Cgroup:              n.Cgroup(),
		Mark:                n.Name,
		Daemons:             []int{n.Containerd.proc.pidOrZero(), n.Daemon.proc.pidOrZero(), n.kubelet.pidOrZero()},
		HasID:               n.IDs.Contains,
		ContainerdNamespace: Namespace,
		AddressDir:          n.network.addressDir(),
		Bridge:              bridgeName,
	}
}

// Close ends everything that belongs to the node and removes it, whatever state it is in. Another Close does
// nothing.
func (n *Node) Close(ctx context.Context) error {
	if n.closed {
		return nil
	}
	n.closed = true
	var errs []error
	if n.kubelet != nil {
		errs = append(errs, n.kubelet.Stop(ctx))
	}
	if n.Daemon != nil {
		errs = append(errs, n.Daemon.Stop(ctx))
	}
	if n.Containerd != nil {
		errs = append(errs, n.Containerd.Stop(ctx))
	}
	errs = append(errs, killMarked(ctx, n.Name))
	if n.Registry != nil {
		errs = append(errs, n.Registry.Close())
	}
	n.World.Close()
	errs = append(errs, RemoveCgroups(n.Name), RemoveDir(n.Dir))
	if n.ids != nil {
		errs = append(errs, n.ids.release())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}
