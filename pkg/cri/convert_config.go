package cri

import (
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// sandboxConfigOf is the inverse of sandboxSpec, for verbose answers.
func sandboxConfigOf(rec sandbox.Record) *runtimeapi.PodSandboxConfig {
	spec := rec.Spec
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     sandboxMetadataOf(rec),
		Hostname:     spec.Hostname,
		LogDirectory: spec.LogDirectory,
		Labels:       spec.Labels,
		Annotations:  spec.Annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: spec.CgroupParent,
			Sysctls:      spec.Sysctls,
			Overhead:     resourcesOf(spec.Overhead),
			Resources:    resourcesOf(spec.Resources),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: namespaceOptions(rec),
				SelinuxOptions:   selinuxOf(spec.SELinux),
				Privileged:       spec.Privileged,
				Seccomp:          profileOf(spec.Seccomp),
			},
		},
	}
	if dns := spec.DNS; dns != nil {
		config.DnsConfig = &runtimeapi.DNSConfig{Servers: dns.Servers, Searches: dns.Searches, Options: dns.Options}
	}
	for _, pm := range spec.PortMappings {
		config.PortMappings = append(config.PortMappings, &runtimeapi.PortMapping{
			Protocol:      runtimeapi.Protocol(runtimeapi.Protocol_value[strings.ToUpper(pm.Protocol)]),
			ContainerPort: pm.ContainerPort,
			HostPort:      pm.HostPort,
			HostIp:        pm.HostIP,
		})
	}
	return config
}

// containerConfigOf is the inverse of containerSpec, for verbose answers.
func containerConfigOf(rec container.Record) *runtimeapi.ContainerConfig {
	spec := rec.Spec
	config := &runtimeapi.ContainerConfig{
		Metadata:    containerMetadata(rec),
		Image:       imageSpec(rec),
		Command:     spec.Command,
		Args:        spec.Args,
		WorkingDir:  spec.WorkingDir,
		Labels:      spec.Labels,
		Annotations: spec.Annotations,
		LogPath:     spec.LogPath,
		Stdin:       spec.Stdin,
		StdinOnce:   spec.StdinOnce,
		Tty:         spec.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       resourcesOf(spec.Resources),
			SecurityContext: securityOf(spec),
		},
	}
	if spec.StopSignal != "" {
		config.StopSignal = signalOf(spec.StopSignal)
	}
	for _, kv := range spec.Env {
		config.Envs = append(config.Envs, &runtimeapi.KeyValue{Key: kv.Key, Value: []byte(kv.Value)})
	}
	for _, m := range spec.Mounts {
		config.Mounts = append(config.Mounts, mountOf(m))
	}
	for _, d := range spec.Devices {
		config.Devices = append(config.Devices, &runtimeapi.Device{
			HostPath: d.HostPath, ContainerPath: d.ContainerPath, Permissions: d.Permissions,
		})
	}
	for _, name := range spec.CDIDevices {
		config.CDIDevices = append(config.CDIDevices, &runtimeapi.CDIDevice{Name: name})
	}
	return config
}

func securityOf(spec container.Spec) *runtimeapi.LinuxContainerSecurityContext {
	s := spec.Security
	out := &runtimeapi.LinuxContainerSecurityContext{
		Privileged: s.Privileged,
		Capabilities: &runtimeapi.Capability{
			AddCapabilities:        s.Capabilities.Add,
			DropCapabilities:       s.Capabilities.Drop,
			AddAmbientCapabilities: s.Capabilities.AddAmbient,
		},
		NamespaceOptions:   &runtimeapi.NamespaceOption{Pid: pidModeOf(spec.Namespaces.PID), TargetId: spec.Namespaces.TargetID},
		SelinuxOptions:     selinuxOf(s.SELinux),
		RunAsUsername:      s.User.Name,
		ReadonlyRootfs:     s.ReadonlyRootfs,
		SupplementalGroups: s.User.SupplementalGroups,
		NoNewPrivs:         s.NoNewPrivs,
		MaskedPaths:        s.MaskedPaths,
		ReadonlyPaths:      s.ReadonlyPaths,
		Seccomp:            profileOf(s.Seccomp),
		Apparmor:           profileOf(s.AppArmor),
	}
	if s.User.UID != nil {
		out.RunAsUser = &runtimeapi.Int64Value{Value: *s.User.UID}
	}
	if s.User.GID != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *s.User.GID}
	}
	if s.User.GroupsPolicy == ocispec.GroupsStrict {
		out.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return out
}

func pidModeOf(mode container.PIDMode) runtimeapi.NamespaceMode {
	switch mode {
	case container.PIDPod:
		return runtimeapi.NamespaceMode_POD
	case container.PIDNode:
		return runtimeapi.NamespaceMode_NODE
	case container.PIDTarget:
		return runtimeapi.NamespaceMode_TARGET
	}
	return runtimeapi.NamespaceMode_CONTAINER
}

// profileOf is the inverse of profile.
func profileOf(p ocispec.Profile) *runtimeapi.SecurityProfile {
	switch p.Type {
	case ocispec.ProfileRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	case ocispec.ProfileLocalhost:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: p.Ref}
	case ocispec.ProfileUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	}
	return nil
}

// selinuxOf is the inverse of selinux.
func selinuxOf(o *ocispec.SELinux) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}
