// Package cdidev injects devices of the Container Device Interface (CDI) into specifications that
// ocispec has built. The host's CDI files say what a device is: nodes, environment, mounts and hooks.
// It does not decide who may ask for one; kubelet's device plugins and DRA drivers do.
package cdidev

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
	cdispecs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// ErrNotFound means that no CDI file of the host describes the device.
var ErrNotFound = errors.New("CDI device not found")

// Request names devices, each as vendor.com/class=name.
type Request struct {
	SpecDirs []string
	Devices  []string
	// Annotations of the container may name more under cdi.k8s.io/, as older device plugins do.
	Annotations map[string]string
}

// Inject edits spec as the devices' CDI files say. Files are read anew each time: drivers rewrite
// them while nodes run. An error wraps ErrNotFound, ocispec.ErrInvalid for a name that is none, or
// ocispec.ErrUnsupported for a device that cannot be had in this container.
func Inject(spec *specs.Spec, req Request) error {
	names, err := requested(req)
	if err != nil || len(names) == 0 {
		return err
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(req.SpecDirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return fmt.Errorf("read CDI files: %w", err)
	}
	if err := find(cache, names); err != nil {
		return err
	}
	if _, err := cache.InjectDevices(spec, names...); err != nil {
		return fmt.Errorf("inject CDI devices %q: %w: %w", names, ocispec.ErrUnsupported, err)
	}
	if !ownUserNamespace(spec) {
		return nil
	}
	edits := editsOf(cache, names)
	keepHostOwners(spec, edits)
	return bindNodes(spec, hostPaths(edits))
}

// requested joins both ways to name devices; a device named twice is injected once.
func requested(req Request) ([]string, error) {
	_, annotated, err := cdi.ParseAnnotations(req.Annotations)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ocispec.ErrInvalid, err)
	}
	var out []string
	for _, name := range slices.Concat(req.Devices, annotated) {
		if _, _, _, err := parser.ParseQualifiedName(name); err != nil {
			return nil, fmt.Errorf("%w: CDI device %q: %w", ocispec.ErrInvalid, name, err)
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// find names what is missing, together with what is wrong with the files that may have had it. A
// faulty file of one vendor is none of another's business.
func find(cache *cdi.Cache, names []string) error {
	var missing []string
	for _, name := range names {
		if cache.GetDevice(name) == nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	err := fmt.Errorf("%w: %q in %q", ErrNotFound, missing, cache.GetSpecDirectories())
	if faults := cache.Refresh(); faults != nil {
		return fmt.Errorf("%w; faulty files: %w", err, faults)
	}
	return err
}

func ownUserNamespace(spec *specs.Spec) bool {
	return slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
}

// editsOf are what the files say of the devices.
func editsOf(cache *cdi.Cache, names []string) []cdispecs.ContainerEdits {
	var out []cdispecs.ContainerEdits
	for _, name := range names {
		device := cache.GetDevice(name)
		out = append(out, device.GetSpec().ContainerEdits, device.ContainerEdits)
	}
	return out
}

// keepHostOwners takes the idmapping off the read-only mounts. The pod's own root can make such a mount
// writable again; through an idmapping it would then write drivers and libraries as the host's root. All
// ids there show as 65534 instead, which can read what everybody can.
func keepHostOwners(spec *specs.Spec, edits []cdispecs.ContainerEdits) {
	injected := map[string]bool{}
	for _, e := range edits {
		for _, m := range e.Mounts {
			injected[m.ContainerPath] = true
		}
	}
	for i, m := range spec.Mounts {
		if injected[m.Destination] && slices.Contains(m.Options, "ro") {
			spec.Mounts[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "idmap" })
		}
	}
}

// hostPaths are the device nodes that the files name, by their paths in the container.
func hostPaths(edits []cdispecs.ContainerEdits) map[string]string {
	out := map[string]string{}
	for _, e := range edits {
		for _, n := range e.DeviceNodes {
			out[filepath.Clean(n.Path)] = filepath.Clean(cmp.Or(n.HostPath, n.Path))
		}
	}
	return out
}

// bindNodes turns nodes that have another path in the container into bind mounts. A user namespace
// cannot make nodes: the OCI runtime binds the host's, and looks for it at the container's path.
func bindNodes(spec *specs.Spec, hostPaths map[string]string) error {
	var nodes []specs.LinuxDevice
	for _, node := range spec.Linux.Devices {
		path := filepath.Clean(node.Path)
		host, ours := hostPaths[path]
		if !ours {
			nodes = append(nodes, node)
			continue
		}
		if _, err := os.Stat(host); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: a user namespace cannot make device node %s, and the host has none at %s",
				ocispec.ErrUnsupported, path, host)
		} else if err != nil {
			return fmt.Errorf("CDI device node: %w", err)
		}
		if host == path {
			nodes = append(nodes, node)
			continue
		}
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Destination: path, Type: "bind", Source: host, Options: []string{"bind", "rprivate"},
		})
	}
	spec.Linux.Devices = nodes
	return nil
}
