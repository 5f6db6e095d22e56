package sandbox

import (
	"maps"

	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
)

// The sysctls behind the options for unprivileged ports and ICMP.
const (
	sysctlPortStart = "net.ipv4.ip_unprivileged_port_start"
	sysctlPingRange = "net.ipv4.ping_group_range"
	allGroups       = "0 2147483647" // all that the pod has
)

// namespaceRequest derives the namespaces of a sandbox from its record alone, so that creation,
// teardown and recovery agree on them.
func (m *Manager) namespaceRequest(rec Record) ns.Request {
	spec := rec.Spec
	req := ns.Request{
		Network: spec.Namespaces.Network != ModeNode,
		IPC:     spec.Namespaces.IPC != ModeNode,
		UTS:     spec.Namespaces.Network != ModeNode,
		Dir:     m.Paths(rec.ID).Namespaces,
	}
	if req.Network {
		req.NetPath = ns.NetNSPath(rec.ID)
	}
	if req.UTS {
		req.Hostname = spec.Hostname
	}
	if rec.Range != nil {
		req.User = &ns.IDMap{HostID: rec.Range.Start, Length: rec.Range.Length}
	}
	return req
}

// sysctls adds those of the node's options to the pod's own, which win.
func (m *Manager) sysctls(rec Record) map[string]string {
	out := map[string]string{}
	if rec.Spec.Namespaces.Network != ModeNode {
		if m.opts.UnprivilegedPorts {
			out[sysctlPortStart] = "0"
		}
		if m.opts.UnprivilegedICMP {
			out[sysctlPingRange] = allGroups
		}
	}
	maps.Copy(out, rec.Spec.Sysctls)
	return out
}

func networkPod(rec Record) network.Pod {
	md := rec.Spec.Metadata
	pod := network.Pod{
		ID:           rec.ID,
		Name:         md.Name,
		Namespace:    md.Namespace,
		UID:          md.UID,
		NetNSPath:    ns.NetNSPath(rec.ID),
		CgroupParent: rec.Spec.CgroupParent,
		Annotations:  rec.Spec.Annotations,
		PortMappings: rec.Spec.PortMappings,
	}
	if dns := rec.Spec.DNS; dns != nil {
		pod.DNS = *dns
	}
	return pod
}
