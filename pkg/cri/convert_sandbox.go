package cri

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// maxHostname is the kernel's limit, __NEW_UTS_LEN.
const maxHostname = 64

// sandboxSpec validates a sandbox's configuration and converts it.
func sandboxSpec(cfg *runtimeapi.PodSandboxConfig, handler string, driver ocispec.CgroupDriver) (sandbox.Spec, error) {
	md, err := sandboxMetadata(cfg.GetMetadata())
	if err != nil {
		return sandbox.Spec{}, err
	}
	if len(cfg.GetHostname()) > maxHostname || !printable(cfg.GetHostname()) {
		return sandbox.Spec{}, invalid("hostname %q: want at most %d printable characters", cfg.GetHostname(), maxHostname)
	}
	if err := checkPath("log_directory", cfg.GetLogDirectory()); err != nil {
		return sandbox.Spec{}, err
	}
	dns, err := dnsConfig(cfg.GetDnsConfig())
	if err != nil {
		return sandbox.Spec{}, err
	}
	linux := cfg.GetLinux()
	if err := checkCgroupParent(driver, linux.GetCgroupParent()); err != nil {
		return sandbox.Spec{}, err
	}
	security := linux.GetSecurityContext()
	namespaces, err := sandboxNamespaces(security.GetNamespaceOptions())
	if err != nil {
		return sandbox.Spec{}, err
	}
	ids, err := idRequest(cfg.GetAnnotations())
	if err != nil {
		return sandbox.Spec{}, err
	}
	ports, err := portMappings(cfg.GetPortMappings())
	if err != nil {
		return sandbox.Spec{}, err
	}
	seccomp, err := profile("seccomp", security.GetSeccomp())
	if err != nil {
		return sandbox.Spec{}, err
	}
	return sandbox.Spec{
		Metadata:       md,
		Hostname:       cfg.GetHostname(),
		LogDirectory:   cfg.GetLogDirectory(),
		DNS:            dns,
		PortMappings:   ports,
		Labels:         cfg.GetLabels(),
		Annotations:    cfg.GetAnnotations(),
		RuntimeHandler: handler,
		CgroupParent:   linux.GetCgroupParent(),
		Sysctls:        linux.GetSysctls(),
		Namespaces:     namespaces,
		IDs:            ids,
		Privileged:     security.GetPrivileged(),
		Seccomp:        seccomp,
		SELinux:        selinux(security.GetSelinuxOptions()),
		Resources:      resources(linux.GetResources()),
		Overhead:       resources(linux.GetOverhead()),
	}, nil
}

// dnsConfig accepts what resolv.conf can hold: its lines are separated by newlines, and the words
// on them by blanks.
func dnsConfig(dns *runtimeapi.DNSConfig) (*network.DNS, error) {
	if dns == nil {
		return nil, nil
	}
	for field, words := range map[string][]string{
		"servers":  dns.GetServers(),
		"searches": dns.GetSearches(),
		"options":  dns.GetOptions(),
	} {
		for _, word := range words {
			if word == "" || strings.Contains(word, " ") || !printable(word) {
				return nil, invalid("dns_config.%s has %q: want printable characters and no space", field, word)
			}
		}
	}
	return &network.DNS{Servers: dns.GetServers(), Searches: dns.GetSearches(), Options: dns.GetOptions()}, nil
}

// checkCgroupParent refuses at once what no container of the pod could be made below.
func checkCgroupParent(driver ocispec.CgroupDriver, parent string) error {
	if _, err := ocispec.CgroupsPath(driver, parent, "container"); err != nil {
		return fmt.Errorf("check cgroup_parent: %w", err)
	}
	return nil
}

func sandboxMetadata(md *runtimeapi.PodSandboxMetadata) (sandbox.Metadata, error) {
	for field, value := range map[string]string{
		"name":      md.GetName(),
		"namespace": md.GetNamespace(),
		"uid":       md.GetUid(),
	} {
		if err := checkName("sandbox metadata."+field, value); err != nil {
			return sandbox.Metadata{}, err
		}
	}
	return sandbox.Metadata{
		Name:      md.GetName(),
		UID:       md.GetUid(),
		Namespace: md.GetNamespace(),
		Attempt:   md.GetAttempt(),
	}, nil
}

var sandboxModes = map[runtimeapi.NamespaceMode]sandbox.Mode{
	runtimeapi.NamespaceMode_POD:       sandbox.ModePod,
	runtimeapi.NamespaceMode_CONTAINER: sandbox.ModeContainer,
	runtimeapi.NamespaceMode_NODE:      sandbox.ModeNode,
}

func sandboxNamespaces(opts *runtimeapi.NamespaceOption) (sandbox.Namespaces, error) {
	var none sandbox.Namespaces
	for field, mode := range map[string]runtimeapi.NamespaceMode{"network": opts.GetNetwork(), "ipc": opts.GetIpc()} {
		if mode != runtimeapi.NamespaceMode_POD && mode != runtimeapi.NamespaceMode_NODE {
			return none, invalid("namespace_options.%s is %s: a pod's can be POD or NODE", field, mode)
		}
	}
	if _, ok := sandboxModes[opts.GetPid()]; !ok {
		return none, invalid("namespace_options.pid is %s: a sandbox has no target container", opts.GetPid())
	}
	user, err := userNamespace(opts.GetUsernsOptions())
	if err != nil {
		return none, err
	}
	if user != nil && opts.GetPid() == runtimeapi.NamespaceMode_NODE {
		return none, invalid("hostPID and a user namespace exclude each other: the host's processes are not mapped in the pod")
	}
	if user != nil && opts.GetIpc() == runtimeapi.NamespaceMode_NODE {
		return none, invalid("hostIPC and a user namespace exclude each other: the host's IPC namespace does not belong to the pod")
	}
	return sandbox.Namespaces{
		Network: sandboxModes[opts.GetNetwork()],
		PID:     sandboxModes[opts.GetPid()],
		IPC:     sandboxModes[opts.GetIpc()],
		User:    user,
	}, nil
}

// userNamespace returns nil for the host's user namespace.
func userNamespace(opts *runtimeapi.UserNamespace) (*sandbox.UserNamespace, error) {
	if opts == nil {
		return nil, nil
	}
	switch opts.GetMode() {
	case runtimeapi.NamespaceMode_NODE:
		if len(opts.GetUids())+len(opts.GetGids()) > 0 {
			return nil, invalid("userns_options has mode NODE and id mappings: the host's user namespace takes none")
		}
		return nil, nil
	case runtimeapi.NamespaceMode_POD:
		mapping, err := idMapping(opts)
		if err != nil {
			return nil, err
		}
		return &sandbox.UserNamespace{Requested: mapping}, nil
	}
	return nil, invalid("userns_options.mode is %s: a pod's can be POD or NODE", opts.GetMode())
}

// idMapping returns nil when the client leaves the ids to the runtime.
func idMapping(opts *runtimeapi.UserNamespace) (*ocispec.IDMapping, error) {
	uids, gids := opts.GetUids(), opts.GetGids()
	if len(uids) == 0 && len(gids) == 0 {
		return nil, nil
	}
	if len(uids) != 1 || len(gids) != 1 {
		return nil, invalid("userns_options has %d uid and %d gid mappings: want one of each", len(uids), len(gids))
	}
	u, g := uids[0], gids[0]
	if u.GetLength() != g.GetLength() || u.GetHostId() != g.GetHostId() || u.GetContainerId() != g.GetContainerId() {
		return nil, invalid("userns_options maps uids %d:%d:%d and gids %d:%d:%d (container id, host id, length): want the same",
			u.GetContainerId(), u.GetHostId(), u.GetLength(), g.GetContainerId(), g.GetHostId(), g.GetLength())
	}
	if u.GetContainerId() != 0 || u.GetLength() == 0 {
		return nil, invalid("userns_options maps %d ids from container id %d: container id 0 has to be mapped", u.GetLength(), u.GetContainerId())
	}
	return &ocispec.IDMapping{HostID: u.GetHostId(), Length: u.GetLength()}, nil
}

func portMappings(in []*runtimeapi.PortMapping) ([]network.PortMapping, error) {
	var out []network.PortMapping
	for _, pm := range in {
		if pm.GetHostPort() == 0 {
			continue
		}
		if !validPort(pm.GetHostPort()) || !validPort(pm.GetContainerPort()) {
			return nil, invalid("port_mappings forwards host port %d to %d: want 1-65535", pm.GetHostPort(), pm.GetContainerPort())
		}
		if _, ok := runtimeapi.Protocol_name[int32(pm.GetProtocol())]; !ok {
			return nil, invalid("port_mappings forwards host port %d of protocol %s", pm.GetHostPort(), pm.GetProtocol())
		}
		// The plugin would take what it cannot read for all of the host's addresses.
		if _, err := netip.ParseAddr(pm.GetHostIp()); err != nil && pm.GetHostIp() != "" {
			return nil, invalid("port_mappings forwards host port %d of host_ip %q: want an IP address", pm.GetHostPort(), pm.GetHostIp())
		}
		out = append(out, network.PortMapping{
			Protocol:      strings.ToLower(pm.GetProtocol().String()),
			ContainerPort: pm.GetContainerPort(),
			HostPort:      pm.GetHostPort(),
			HostIP:        pm.GetHostIp(),
		})
	}
	return out, nil
}

func validPort(p int32) bool { return p > 0 && p < 65536 }

// podSandboxStatus reports the effective mapping, which is not the requested one in a pod that
// was remapped.
func podSandboxStatus(rec sandbox.Record) *runtimeapi.PodSandboxStatus {
	status := &runtimeapi.PodSandboxStatus{
		Id:             rec.ID,
		Metadata:       sandboxMetadataOf(rec),
		State:          sandboxState(rec),
		CreatedAt:      rec.CreatedAt.UnixNano(),
		Network:        &runtimeapi.PodSandboxNetworkStatus{},
		Linux:          &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: namespaceOptions(rec)}},
		Labels:         rec.Spec.Labels,
		Annotations:    rec.Spec.Annotations,
		RuntimeHandler: rec.Spec.RuntimeHandler,
	}
	for i, ip := range rec.IPs {
		if i == 0 {
			status.Network.Ip = ip.String()
			continue
		}
		status.Network.AdditionalIps = append(status.Network.AdditionalIps, &runtimeapi.PodIP{Ip: ip.String()})
	}
	return status
}

func podSandbox(rec sandbox.Record) *runtimeapi.PodSandbox {
	return &runtimeapi.PodSandbox{
		Id:             rec.ID,
		Metadata:       sandboxMetadataOf(rec),
		State:          sandboxState(rec),
		CreatedAt:      rec.CreatedAt.UnixNano(),
		Labels:         rec.Spec.Labels,
		Annotations:    rec.Spec.Annotations,
		RuntimeHandler: rec.Spec.RuntimeHandler,
	}
}

func sandboxMetadataOf(rec sandbox.Record) *runtimeapi.PodSandboxMetadata {
	md := rec.Spec.Metadata
	return &runtimeapi.PodSandboxMetadata{Name: md.Name, Uid: md.UID, Namespace: md.Namespace, Attempt: md.Attempt}
}

func sandboxState(rec sandbox.Record) runtimeapi.PodSandboxState {
	if rec.Phase == sandbox.PhaseReady {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func namespaceOptions(rec sandbox.Record) *runtimeapi.NamespaceOption {
	mode := func(m sandbox.Mode) runtimeapi.NamespaceMode {
		for api, plain := range sandboxModes {
			if plain == m {
				return api
			}
		}
		return runtimeapi.NamespaceMode_POD
	}
	opts := &runtimeapi.NamespaceOption{
		Network:       mode(rec.Spec.Namespaces.Network),
		Pid:           mode(rec.Spec.Namespaces.PID),
		Ipc:           mode(rec.Spec.Namespaces.IPC),
		UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE},
	}
	if m := rec.Mapping(); m != nil {
		ids := []*runtimeapi.IDMapping{{ContainerId: m.ContainerID, HostId: m.HostID, Length: m.Length}}
		opts.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
	}
	return opts
}

// checkPath accepts an absolute, clean path, or none.
func checkPath(field, path string) error {
	if path == "" {
		return nil
	}
	if !filepath.IsAbs(path) || filepath.Clean(path) != strings.TrimSuffix(path, "/") || strings.ContainsAny(path, "\x00\n") {
		return invalid("%s is %q: want an absolute path without \"..\"", field, path)
	}
	return nil
}
