package nri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/ocispec/hostdev"
)

// fit turns mounts and devices into what a pod with a user namespace can have: bind mounts are idmapped as those of the
// client are, and devices are found on the host, for a user namespace can make none.
func (a *Adapter) fit(ctx context.Context, req container.Adjustment, adj adjustment) error {
	for i, m := range adj.merged.GetMounts() {
		if _, removed := m.IsMarkedForRemoval(); removed {
			continue
		}
		fitted, err := a.fitMount(ctx, req, m)
		if err != nil {
			owns := func(a *api.ContainerAdjustment) bool { return slices.ContainsFunc(a.GetMounts(), m.Cmp) }
			return adj.wrong(owns, fmt.Errorf("mount of %s at %s in a pod with a user namespace: %w", m.GetSource(), m.GetDestination(), err))
		}
		adj.merged.Mounts[i] = fitted
	}
	return a.fitDevices(req, adj)
}

// fitMount leaves mounts that are no bind mounts: the OCI runtime makes them in the pod's user namespace.
func (a *Adapter) fitMount(ctx context.Context, req container.Adjustment, m *api.Mount) (*api.Mount, error) {
	v, isBind := ocispec.ParseBind(m.ToOCI(nil))
	if !isBind {
		return m, nil
	}
	if _, err := ocispec.Bind(v, req.Sandbox.Mapping(), a.opts.Host); err != nil { // before anything is mounted
		return nil, err
	}
	v, err := req.Volume(ctx, v)
	if err != nil {
		return nil, err
	}
	bind, err := ocispec.Bind(v, req.Sandbox.Mapping(), a.opts.Host)
	if err != nil {
		return nil, err
	}
	return api.FromOCIMounts([]specs.Mount{bind})[0], nil
}

// fitDevices has a node at another path of the host bound, as those of the client are. Its rule for the devices
// cgroup is the generator's to make, which needs the device; so it is made here.
func (a *Adapter) fitDevices(req container.Adjustment, adj adjustment) error {
	linux := adj.merged.GetLinux()
	var nodes []*api.LinuxDevice
	for _, d := range linux.GetDevices() {
		if _, removed := d.IsMarkedForRemoval(); removed {
			nodes = append(nodes, d)
			continue
		}
		host, err := findDevice(d)
		if err != nil {
			owns := func(a *api.ContainerAdjustment) bool {
				return slices.ContainsFunc(a.GetLinux().GetDevices(), func(o *api.LinuxDevice) bool { return o.GetPath() == d.GetPath() })
			}
			return adj.wrong(owns, err)
		}
		if host == path.Clean(d.GetPath()) {
			nodes = append(nodes, d)
			continue
		}
		adj.merged.Mounts = append(adj.merged.Mounts, &api.Mount{
			Destination: path.Clean(d.GetPath()), Type: "bind", Source: host, Options: []string{"bind", "rprivate"},
		})
		major, minor := d.GetMajor(), d.GetMinor()
		specWriter{spec: req.Spec}.AddLinuxResourcesDevice(true, d.GetType(), &major, &minor, d.AccessString())
	}
	if linux != nil {
		linux.Devices = nodes
	}
	return nil
}

// findDevice returns the host's path of a node, its own where that is one.
func findDevice(d *api.LinuxDevice) (string, error) {
	same := func(n specs.LinuxDevice) bool {
		return n.Type == d.GetType() && n.Major == d.GetMajor() && n.Minor == d.GetMinor()
	}
	found, err := hostdev.Resolve(ocispec.Device{HostPath: d.GetPath(), Permissions: d.AccessString()})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if len(found) == 1 && same(found[0].Node) && found[0].HostPath == path.Clean(d.GetPath()) {
		return found[0].HostPath, nil
	}
	all, err := hostdev.All()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(h ocispec.HostDevice) bool { return same(h.Node) })
	if i < 0 {
		return "", fmt.Errorf("%w: a user namespace cannot make device %s, and the host has no node %s %d:%d below /dev",
			ocispec.ErrUnsupported, d.GetPath(), d.GetType(), d.GetMajor(), d.GetMinor())
	}
	return all[i].HostPath, nil
}
