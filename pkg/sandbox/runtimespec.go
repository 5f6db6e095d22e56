package sandbox

import (
	"maps"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// RuntimeSpec describes the sandbox in the words of an OCI specification, for tools that look there
// for a pod's namespaces. Nothing is run from it. A namespace that the pod shares with the host is
// left out, as in any specification, and so are all of a sandbox that was stopped: their pins are gone.
func (r Record) RuntimeSpec() *specs.Spec {
	linux := &specs.Linux{Namespaces: r.namespaces(), CgroupsPath: r.Spec.CgroupParent}
	if m := r.Mapping(); m != nil {
		ids := []specs.LinuxIDMapping{{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Length}}
		linux.UIDMappings, linux.GIDMappings = ids, ids
	}
	if len(r.Spec.Sysctls) > 0 {
		linux.Sysctl = maps.Clone(r.Spec.Sysctls)
	}
	return &specs.Spec{
		Version:     specs.Version,
		Hostname:    r.Spec.Hostname,
		Annotations: r.annotations(),
		Linux:       linux,
	}
}

func (r Record) namespaces() []specs.LinuxNamespace {
	var out []specs.LinuxNamespace
	for _, n := range []specs.LinuxNamespace{
		{Type: specs.UserNamespace, Path: r.Pins.User},
		{Type: specs.NetworkNamespace, Path: r.Pins.Network},
		{Type: specs.IPCNamespace, Path: r.Pins.IPC},
		{Type: specs.UTSNamespace, Path: r.Pins.UTS},
		{Type: specs.PIDNamespace, Path: r.Pins.PID},
	} {
		if n.Path != "" {
			out = append(out, n)
		}
	}
	return out
}

// annotations are the pod's own, and over them those that containerd's CRI plugin gives a sandbox.
func (r Record) annotations() map[string]string {
	out := maps.Clone(r.Spec.Annotations)
	if out == nil {
		out = map[string]string{}
	}
	md := r.Spec.Metadata
	maps.Copy(out, map[string]string{
		ocispec.AnnotationContainerType:    "sandbox",
		ocispec.AnnotationSandboxID:        r.ID,
		ocispec.AnnotationSandboxName:      md.Name,
		ocispec.AnnotationSandboxNamespace: md.Namespace,
		ocispec.AnnotationSandboxUID:       md.UID,
	})
	return out
}
