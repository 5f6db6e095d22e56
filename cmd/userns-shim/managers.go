package main

import (
	"context"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec/selinuxlabel"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// hostNamespaces makes namespaces for real.
type hostNamespaces struct{}

func (hostNamespaces) Create(ctx context.Context, req ns.Request) (ns.Pins, error) {
	return ns.Create(ctx, req)
}

func (hostNamespaces) WriteSysctls(ctx context.Context, pins ns.Pins, user *ns.IDMap, sysctls map[string]string) error {
	return ns.WriteSysctls(ctx, pins, user, sysctls)
}

func (hostNamespaces) Remove(ctx context.Context, dir, netPath string) error {
	return ns.Remove(ctx, dir, netPath)
}

func (hostNamespaces) Check(pins ns.Pins, user *ns.IDMap) error { return ns.Check(pins, user) }

func (d *daemon) buildSandboxes(ctx context.Context) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	process, err := d.podInit()
	if err != nil {
		return err
	}
	policies, perShim := d.podPolicies()
	mirror, err := d.mirror("sandboxes")
	if err != nil {
		return err
	}
	d.sandboxes, err = sandbox.New(sandbox.Options{
		DB:             d.db,
		Mirror:         mirror,
		Pool:           d.pool,
		Look:           d.witness.Look,
		Namespaces:     hostNamespaces{},
		Network:        d.node.network,
		Process:        process,
		Labels:         selinuxlabel.Host{},
		StateDir:       d.cfg.State,
		BootID:         boot,
		Clock:          clock.RealClock{},
		Logger:         klog.FromContext(ctx),
		UserNamespaces: policies,
		IDs:            d.idLimits(),
		PodsPerShim:    perShim,
		DefaultHandler: d.cfg.DefaultRuntimeHandler,

		CheckUserNamespaces: d.node.checkUserNamespaces,

		Notify:            d.events.Publish,
		ObserveLease:      d.observeLease,
		ObserveRelease:    d.observeRelease,
		Plugins:           d.sandboxPlugins(),
		RejectConflicts:   d.cfg.IDPool.OnConflict == config.ConflictReject,
		UnprivilegedPorts: d.cfg.EnableUnprivilegedPorts,
		UnprivilegedICMP:  d.cfg.EnableUnprivilegedICMP,
	})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, closerFunc(func() error { d.sandboxes.Close(); return nil }))
	return nil
}

// podPolicies are, by runtime handler, the policy on user namespaces and the number of pods in a shim.
func (d *daemon) podPolicies() (users map[string]sandbox.UserNamespacePolicy, perShim map[string]int) {
	users, perShim = map[string]sandbox.UserNamespacePolicy{}, map[string]int{}
	for name, h := range d.cfg.RuntimeHandlers {
		users[name], perShim[name] = sandbox.UserNamespacePolicy(h.UserNamespaces), h.PodsPerShim
	}
	return users, perShim
}

// idLimits are what pods may ask for by annotations, by runtime handler.
func (d *daemon) idLimits() map[string]sandbox.IDLimits {
	limits := map[string]sandbox.IDLimits{}
	for name, h := range d.cfg.RuntimeHandlers {
		limits[name] = sandbox.IDLimits{MaxCount: h.MaxIDsPerPod, Reservations: h.Reservations}
	}
	return limits
}

func (d *daemon) buildContainers(ctx context.Context) error {
	host, err := d.node.host()
	if err != nil {
		return err
	}
	mirror, err := d.mirror("containers")
	if err != nil {
		return err
	}
	d.containers, err = container.New(container.Options{
		DB:             d.db,
		Mirror:         mirror,
		Images:         d.engine,
		Snapshots:      d.engine,
		Records:        d.engine,
		Tasks:          d.engine,
		Inspector:      d.engine,
		Execs:          d.engine,
		Consoles:       d.engine,
		Updates:        d.engine,
		Checkpoints:    d.engine,
		Diffs:          d.engine,
		RestoreImages:  d.cfg.RestoreCheckpointImages,
		Rootfs:         d.mounter,
		Sandbox:        d.sandboxes.Get,
		PIDPins:        hostNamespaces{},
		Cgroups:        d.cgroups,
		Labels:         selinuxlabel.Host{},
		Clock:          clock.RealClock{},
		Logger:         klog.FromContext(ctx),
		Notify:         d.events.Publish,
		Plugins:        d.containerPlugins(),
		StateDir:       d.cfg.State,
		RootDir:        d.cfg.Root,
		Handlers:       d.handlers(),
		DefaultHandler: d.cfg.DefaultRuntimeHandler,
		Host:           host,

		RecursiveReadOnly: d.node.recursiveReadOnly,

		SystemdCgroup: d.node.SystemdCgroup(),
		CDISpecDirs:   d.cfg.CDISpecDirs,
		Classes:       d.classes,
		Keeper:        d.systemd,
		MaxLogLine:    d.cfg.MaxContainerLogLineSize,
	})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, closerFunc(func() error { d.containers.Close(); return nil }))
	return nil
}
