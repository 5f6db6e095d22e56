package ocispec

import specs "github.com/opencontainers/runtime-spec/specs-go"

func (c *Container) namespaces() ([]specs.LinuxNamespace, error) {
	ns := &c.Namespaces
	if c.Mapping != nil {
		// Neither proc of the host's PID namespace nor mqueue of the host's IPC namespace can be
		// mounted from inside a user namespace.
		if ns.PID.Host {
			return nil, unsupportedf("the host's PID namespace in a pod with a user namespace")
		}
		if ns.IPC.Host {
			return nil, unsupportedf("the host's IPC namespace in a pod with a user namespace")
		}
	}
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if c.Mapping != nil {
		if err := checkPath("user namespace", ns.User); err != nil {
			return nil, err
		}
		out = append(out, specs.LinuxNamespace{Type: specs.UserNamespace, Path: ns.User})
	}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		ns   Namespace
	}{
		{specs.NetworkNamespace, ns.Network},
		{specs.IPCNamespace, ns.IPC},
		{specs.UTSNamespace, ns.UTS},
		{specs.PIDNamespace, ns.PID},
	} {
		entry, join, err := n.ns.spec(n.kind)
		if err != nil {
			return nil, err
		}
		if join {
			out = append(out, entry)
		}
	}
	if c.ownCgroupNamespace() {
		out = append(out, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return out, nil
}

// spec returns the namespace's entry; false means that the container keeps the host's.
func (n Namespace) spec(kind specs.LinuxNamespaceType) (specs.LinuxNamespace, bool, error) {
	entry := specs.LinuxNamespace{Type: kind, Path: n.Path}
	switch {
	case n.Host && n.Path != "":
		return entry, false, invalidf("%s namespace is both the host's and %s", kind, n.Path)
	case n.Host:
		return entry, false, nil
	case n.Path != "":
		return entry, true, checkPath(string(kind)+" namespace", n.Path)
	case kind == specs.PIDNamespace:
		return entry, true, nil
	default:
		return entry, false, invalidf("%s namespace is neither the host's nor pinned", kind)
	}
}

// ownCgroupNamespace hides the host's hierarchy. On cgroup v1 the OCI runtime bind-mounts the
// container's own groups instead, and a privileged container shall see the host's.
func (c *Container) ownCgroupNamespace() bool {
	return c.Host.CgroupV2 && !c.Security.Privileged
}
