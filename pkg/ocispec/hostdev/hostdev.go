// Package hostdev reads device nodes of the host for ocispec.Container.Devices. It decides
// nothing about who may use them.
package hostdev

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// Resolve returns the nodes that a client's device stands for: one, or, when the host path is
// a directory, all below it, at the same place below the container path. Symbolic links on the
// host are followed. An error wraps ocispec.ErrInvalid, and fs.ErrNotExist where the host path does not exist.
func Resolve(d ocispec.Device) ([]ocispec.HostDevice, error) {
	host, err := filepath.EvalSymlinks(d.HostPath)
	if err != nil {
		return nil, fmt.Errorf("%w: device %s: %w", ocispec.ErrInvalid, d.HostPath, err)
	}
	container := d.ContainerPath
	if container == "" {
		container = host
	}
	// Found at their own paths first, so that both paths of each node are known.
	spec := &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	if err := oci.WithDevices(host, "", d.Permissions)(context.Background(), nil, nil, spec); err != nil {
		return nil, fmt.Errorf("%w: device %s: %w", ocispec.ErrInvalid, d.HostPath, err)
	}
	out := make([]ocispec.HostDevice, 0, len(spec.Linux.Devices))
	for _, node := range spec.Linux.Devices {
		below, err := filepath.Rel(host, node.Path)
		if err != nil {
			return nil, fmt.Errorf("%w: device %s: %w", ocispec.ErrInvalid, d.HostPath, err)
		}
		device := ocispec.HostDevice{HostPath: node.Path, Node: node, Access: d.Permissions}
		device.Node.Path = filepath.Join(container, below)
		out = append(out, device)
	}
	return out, nil
}

// All returns every device below /dev, for a privileged container. Terminals, /dev/console
// and FIFOs are left out.
func All() ([]ocispec.HostDevice, error) {
	nodes, err := oci.HostDevices()
	if err != nil {
		return nil, fmt.Errorf("list the host's devices: %w", err)
	}
	out := make([]ocispec.HostDevice, 0, len(nodes))
	for _, node := range nodes {
		out = append(out, ocispec.HostDevice{HostPath: node.Path, Node: node, Access: "rwm"})
	}
	return out, nil
}
