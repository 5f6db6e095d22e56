package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/capability"
	"github.com/moby/sys/mountinfo"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/kernel"
	"github.com/userns-shim/userns-shim/internal/version"
	"github.com/userns-shim/userns-shim/pkg/cri"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// node tells what this machine can do. It is the cri.Node of the daemon.
type node struct {
	cfg     config.Config
	kernel  kernelProber
	engine  runtimeProber
	network *network.Network
	// cgroup2 lists the mounts of cgroup2.
	cgroup2 func() ([]*mountinfo.Info, error)

	recovery recovery
}

var _ cri.Node = (*node)(nil)

// kernelProber is the part of kernel.Prober that a node asks. A nil error is a yes, others say why not.
type kernelProber interface {
	UserNamespaces() error
	TmpfsIDMapped() error
	IDMapped(path string) error
	OverlayLayersIDMapped(dir string) error
	CgroupMode() kernel.CgroupMode
}

// runtimeProber is the part of engine.Engine that a node asks.
type runtimeProber interface {
	Ready(ctx context.Context) error
	RuntimeFeatures(ctx context.Context, runtime, binaryName string) (engine.RuntimeFeatures, error)
	SnapshotterRoot(ctx context.Context, snapshotter string) (string, error)
}

// RuntimeReady asks containerd.
func (n *node) RuntimeReady(ctx context.Context) error {
	if err := n.recovery.pending(); err != nil {
		return err
	}
	return n.engine.Ready(ctx)
}

// NetworkReady asks the CNI configuration.
func (n *node) NetworkReady(ctx context.Context) error { return n.network.Status(ctx) }

// SystemdCgroup decides "auto": systemd where it runs the host on cgroup v2.
func (n *node) SystemdCgroup() bool {
	if n.cfg.CgroupDriver != config.CgroupDriverAuto {
		return n.cfg.CgroupDriver == config.CgroupDriverSystemd
	}
	_, err := os.Stat("/run/systemd/system")
	return err == nil && n.kernel.CgroupMode() == kernel.CgroupUnified
}

// Handlers are the configured handlers and "", which stands for the default one. One that cannot be asked, because its
// programs are not installed or are just being replaced, has no features: the node serves the others.
func (n *node) Handlers(ctx context.Context) ([]cri.Handler, error) {
	out := make([]cri.Handler, 0, len(n.cfg.RuntimeHandlers)+1)
	for name, h := range n.cfg.RuntimeHandlers {
		handler, err := n.handler(ctx, name, h)
		if errdefs.IsUnavailable(err) || ctx.Err() != nil {
			return nil, err
		}
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Runtime handler was not asked for its features", "handler", name, "err", err)
			handler = cri.Handler{Name: name, NoUserNamespaces: err}
		}
		out = append(out, handler)
		if name == n.cfg.DefaultRuntimeHandler {
			handler.Name = ""
			out = append(out, handler)
		}
	}
	return out, nil
}

func (n *node) handler(ctx context.Context, name string, h config.RuntimeHandler) (cri.Handler, error) {
	features, err := n.engine.RuntimeFeatures(ctx, h.Runtime, h.BinaryName)
	if err != nil {
		return cri.Handler{}, fmt.Errorf("runtime handler %s: %w", name, err)
	}
	reason := n.noUserNamespaces(ctx, h, features)
	return cri.Handler{
		Name:                    name,
		UserNamespaces:          reason == nil,
		RecursiveReadOnlyMounts: features.RecursiveROMount,
		NoUserNamespaces:        reason,
	}, nil
}

// noUserNamespaces is why a handler does not offer user namespaces: any of kernel, OCI runtime
// and the snapshotter's filesystem can be the reason. Kubelet refuses hostUsers: false then. Before Linux 6.3
// its volumes on tmpfs are one: each pod has one, with its token.
func (n *node) noUserNamespaces(ctx context.Context, h config.RuntimeHandler, features engine.RuntimeFeatures) error {
	if err := n.withoutUserNamespaces(ctx, h, features); err != nil {
		return err
	}
	return n.kernel.TmpfsIDMapped()
}

// withoutUserNamespaces is why a handler can give no pod a user namespace, whatever its volumes.
func (n *node) withoutUserNamespaces(ctx context.Context, h config.RuntimeHandler, features engine.RuntimeFeatures) error {
	if h.UserNamespaces == config.UserNamespacesNever {
		return fmt.Errorf("the configuration says userNamespaces: never")
	}
	switch {
	case features.All == nil:
		return fmt.Errorf("%s has no command features, so it does not say that it supports idmapped mounts; runc does from 1.2, crun is safe from 1.24", h.BinaryName)
	case !features.IDMappedMounts:
		return fmt.Errorf("%s does not support idmapped mounts; runc does from 1.2, crun is safe from 1.24", h.BinaryName)
	}
	if features.ChownsDevices {
		return fmt.Errorf("%s %s would give the host's /dev/null to a pod's user; crun from 1.24 does not", h.BinaryName, features.Version)
	}
	if err := n.kernel.UserNamespaces(); err != nil {
		return err
	}
	snapshotter := h.Snapshotter
	if snapshotter == "" {
		snapshotter = n.cfg.Containerd.Snapshotter
	}
	root, err := n.engine.SnapshotterRoot(ctx, snapshotter)
	if err != nil {
		return fmt.Errorf("find the filesystem of snapshotter %s: %w", snapshotter, err)
	}
	if snapshotter == "overlayfs" {
		return n.kernel.OverlayLayersIDMapped(root)
	}
	return n.kernel.IDMapped(root)
}

// checkUserNamespaces is why pods of a handler cannot have a user namespace. Where tmpfs cannot be idmapped those without
// such a volume can.
func (n *node) checkUserNamespaces(ctx context.Context, name string) error {
	h := n.cfg.RuntimeHandlers[name]
	features, err := n.engine.RuntimeFeatures(ctx, h.Runtime, h.BinaryName)
	if errdefs.IsUnavailable(err) || ctx.Err() != nil {
		return fmt.Errorf("runtime handler %s: %w", name, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", sandbox.ErrNoUserNamespaces, name, err)
	}
	if err := n.withoutUserNamespaces(ctx, h, features); err != nil {
		return fmt.Errorf("%w: %s: %w", sandbox.ErrNoUserNamespaces, name, err)
	}
	return nil
}

// recursiveReadOnly says whether the OCI runtime of a handler can mount so.
func (n *node) recursiveReadOnly(ctx context.Context, name string) (bool, error) {
	h, err := n.handler(ctx, name, n.cfg.RuntimeHandlers[name])
	return h.RecursiveReadOnlyMounts, err
}

// Details is for crictl info.
func (n *node) Details(ctx context.Context) any {
	reasons := map[string]string{}
	for name, h := range n.cfg.RuntimeHandlers {
		handler, err := n.handler(ctx, name, h)
		if err == nil {
			err = handler.NoUserNamespaces
		}
		if err != nil {
			reasons[name] = err.Error()
		}
	}
	return map[string]any{
		"version":                  version.Version,
		"config":                   n.cfg,
		"userNamespacesMissingFor": reasons,
	}
}

// host is what specifications depend on, read once at the start.
func (n *node) host() (ocispec.Host, error) {
	unified := n.kernel.CgroupMode() == kernel.CgroupUnified
	caps, err := ownCapabilities()
	if err != nil {
		return ocispec.Host{}, err
	}
	score, err := ownOOMScoreAdj()
	if err != nil {
		return ocispec.Host{}, err
	}
	profile, err := loadAppArmor()
	if err != nil {
		return ocispec.Host{}, err
	}
	var options []string
	if unified {
		mounts, err := n.cgroup2()
		if err != nil {
			return ocispec.Host{}, err
		}
		options = cgroupOptions(mounts)
	}
	return ocispec.Host{
		AppArmorDefault:     profile,
		AppArmorLoaded:      func(name string) (bool, error) { return profileLoaded(appArmorProfiles, name) },
		CgroupV2:            unified,
		CgroupOptions:       options,
		Swap:                accountsSwap(unified),
		Hugetlb:             hasHugetlb(unified),
		Seccomp:             hasSeccomp(),
		ReadProfile:         readProfile,
		RecursiveReadOnly:   true,
		Capabilities:        caps,
		RestrictOOMScoreAdj: n.cfg.RestrictOOMScoreAdj,
		OOMScoreAdj:         score,
	}, nil
}

func ownCapabilities() ([]string, error) {
	caps, err := capability.NewPid2(0)
	if err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	if err := caps.Load(); err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	known, err := capability.ListSupported()
	if err != nil {
		return nil, fmt.Errorf("list the kernel's capabilities: %w", err)
	}
	var out []string
	for _, c := range known {
		if caps.Get(capability.PERMITTED, c) {
			out = append(out, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return out, nil
}

func ownOOMScoreAdj() (int, error) {
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, fmt.Errorf("read own oom_score_adj: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

const cgroupRoot = "/sys/fs/cgroup"

// accountsSwap says whether the memory controller limits swap too. On cgroup v2 the root has
// no such file, so a group below it is asked.
func accountsSwap(unified bool) bool {
	if !unified {
		_, err := os.Stat(filepath.Join(cgroupRoot, "memory", "memory.memsw.limit_in_bytes"))
		return err == nil
	}
	found, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "memory.swap.max"))
	return err == nil && len(found) > 0
}

func hasHugetlb(unified bool) bool {
	if !unified {
		_, err := os.Stat(filepath.Join(cgroupRoot, "hugetlb"))
		return err == nil
	}
	controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil && strings.Contains(" "+strings.TrimSpace(string(controllers))+" ", " hugetlb ")
}

func hasSeccomp() bool {
	_, err := os.Stat("/proc/sys/kernel/seccomp/actions_avail")
	return err == nil
}
