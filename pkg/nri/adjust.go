package nri

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/runtime-tools/generate"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/ocispec/cdidev"
)

// adjustment is what plugins ask for, together and each by itself.
type adjustment struct {
	merged  *api.ContainerAdjustment
	answers []answer
}

// wrong makes an error of what the plugin asks for that owns reports true for, the last of them: its word
// counted. All that asked are named where none owns it.
func (adj adjustment) wrong(owns func(*api.ContainerAdjustment) bool, err error) error {
	var names []string
	for _, a := range slices.Backward(adj.answers) {
		if owns(a.adjust) {
			return fmt.Errorf("%w %s: %w", ErrPlugin, a.plugin, err)
		}
		names = append(names, a.plugin)
	}
	slices.Reverse(names)
	return fmt.Errorf("%w %s: %w", ErrPlugin, strings.Join(names, ", "), err)
}

// nobody's it is where all of them made it together.
func nobody(*api.ContainerAdjustment) bool { return false }

// adjust edits the specification. What would take the container out of its pod's range of ids is refused.
func (a *Adapter) adjust(ctx context.Context, req container.Adjustment, adj adjustment) error {
	if adj.merged == nil || len(adj.answers) == 0 {
		return nil
	}
	userns := req.Sandbox.Range != nil
	for _, answer := range adj.answers {
		err := check(answer.adjust, userns)
		if err == nil && userns {
			err = a.checkRlimits(answer.adjust)
		}
		if err != nil {
			return fmt.Errorf("%w %s: %w", ErrPlugin, answer.plugin, err)
		}
	}
	if userns {
		if err := a.fit(ctx, req, adj); err != nil {
			return err
		}
	}
	if err := a.generator(req.Spec).Adjust(adj.merged); err != nil {
		return adj.wrong(nobody, err)
	}
	a.restrain(req.Spec)
	return nil
}

// check refuses what no pod can have, or no pod with a user namespace.
func check(adjust *api.ContainerAdjustment, userns bool) error {
	for key := range adjust.GetAnnotations() {
		if key, _ = api.IsMarkedForRemoval(key); ocispec.ReservedAnnotation(key) {
			return fmt.Errorf("%w: annotation %s says which pod the container is in, and cannot be changed", ocispec.ErrUnsupported, key)
		}
	}
	for _, n := range adjust.GetLinux().GetNamespaces() {
		if n == nil {
			continue
		}
		if err := checkNamespace(n, userns); err != nil {
			return err
		}
	}
	return nil
}

// checkRlimits: the kernel lets the OCI runtime set limits of a process with other ids only with the capability.
func (a *Adapter) checkRlimits(adjust *api.ContainerAdjustment) error {
	const capability = "CAP_SYS_RESOURCE"
	if len(adjust.GetRlimits()) == 0 || a.opts.Host.Capabilities == nil || slices.Contains(a.opts.Host.Capabilities, capability) {
		return nil
	}
	return fmt.Errorf("%w: resource limits in a pod with a user namespace need %s, which this node lacks", ocispec.ErrUnsupported, capability)
}

// checkNamespace: who is who in a pod is decided when its sandbox is made, and all of its mounts follow from that.
func checkNamespace(n *api.LinuxNamespace, userns bool) error {
	kind, removed := n.IsMarkedForRemoval()
	switch {
	case kind == string(specs.UserNamespace):
		return fmt.Errorf("%w: the user namespace and its ids belong to the pod, and cannot be changed for a container", ocispec.ErrUnsupported)
	case userns && kind == string(specs.MountNamespace):
		return fmt.Errorf("%w: a container of a pod with a user namespace needs a mount namespace of its own", ocispec.ErrUnsupported)
	case userns && removed:
		return fmt.Errorf("%w: the host's %s namespace does not belong to the pod's user namespace", ocispec.ErrUnsupported, kind)
	}
	return nil
}

// generator applies adjustments. Classes and CDI devices come from the same files as those of clients.
func (a *Adapter) generator(spec *specs.Spec) *generate.Generator {
	if spec.Linux.Resources == nil {
		spec.Linux.Resources = &specs.LinuxResources{}
	}
	return generate.SpecGenerator(specWriter{spec: spec},
		generate.WithResourceChecker(a.checkResources),
		generate.WithBlockIOResolver(a.opts.Classes.BlockIO),
		generate.WithRdtResolver(a.opts.Classes.RDT),
		generate.WithCDIDeviceInjector(func(spec *specs.Spec, names []string) error {
			return cdidev.Inject(spec, cdidev.Request{SpecDirs: a.opts.CDISpecDirs, Devices: names})
		}),
	)
}

var errUnified = errors.New("unified resources on cgroup v1")

// checkResources leaves out what the host does not account, as for clients.
func (a *Adapter) checkResources(r *specs.LinuxResources) error {
	host := a.opts.Host
	if len(r.Unified) > 0 && !host.CgroupV2 {
		return fmt.Errorf("%w: %w", ocispec.ErrUnsupported, errUnified)
	}
	if !host.Swap && r.Memory != nil {
		r.Memory.Swap = nil
	}
	if !host.Hugetlb {
		r.HugepageLimits = nil
	}
	return nil
}

// restrain keeps to what this process may give.
func (a *Adapter) restrain(spec *specs.Spec) {
	host := a.opts.Host
	if adj := spec.Process.OOMScoreAdj; adj != nil && host.RestrictOOMScoreAdj && *adj < host.OOMScoreAdj {
		spec.Process.OOMScoreAdj = &host.OOMScoreAdj
	}
}
