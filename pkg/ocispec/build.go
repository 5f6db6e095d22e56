package ocispec

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Build makes the specification of a container. An error wraps ErrInvalid, ErrUnsupported or
// ErrIDNotMapped, or comes from an injected function of c.Host.
func Build(c Container) (*specs.Spec, error) {
	c.Devices = distinctDevices(c.Devices)
	spec, err := build(&c)
	if err != nil {
		return nil, fmt.Errorf("build spec of container %q: %w", c.ID, err)
	}
	return spec, nil
}

func build(c *Container) (*specs.Spec, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	process, err := c.process()
	if err != nil {
		return nil, err
	}
	linux, err := c.linux(process.Capabilities)
	if err != nil {
		return nil, err
	}
	mounts, propagation, err := c.allMounts()
	if err != nil {
		return nil, err
	}
	linux.RootfsPropagation = propagation
	return &specs.Spec{
		Version:     specs.Version,
		Root:        &specs.Root{Path: c.RootPath, Readonly: c.Security.ReadonlyRootfs},
		Process:     process,
		Mounts:      mounts,
		Annotations: c.annotations(),
		Linux:       linux,
	}, nil
}

func (c *Container) linux(caps *specs.LinuxCapabilities) (*specs.Linux, error) {
	namespaces, err := c.namespaces()
	if err != nil {
		return nil, err
	}
	resources, err := c.resources()
	if err != nil {
		return nil, err
	}
	devices, err := c.devices(resources)
	if err != nil {
		return nil, err
	}
	seccomp, err := c.seccomp(caps)
	if err != nil {
		return nil, err
	}
	linux := &specs.Linux{
		Namespaces:  namespaces,
		CgroupsPath: c.CgroupsPath,
		Resources:   resources,
		Devices:     devices,
		Seccomp:     seccomp,
		MountLabel:  c.SELinux.Mount,
	}
	if c.Mapping != nil {
		linux.UIDMappings = c.Mapping.spec()
		linux.GIDMappings = c.Mapping.spec()
	}
	if !c.Security.Privileged {
		linux.MaskedPaths = c.Security.MaskedPaths
		linux.ReadonlyPaths = c.Security.ReadonlyPaths
	}
	return linux, nil
}
