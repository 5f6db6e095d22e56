package ocispec

import (
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCapabilities is the set that Docker, containerd and CRI-O agree on, more or less;
// images rely on each of them.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
		"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
		"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// capabilityName admits names that no kernel knows yet: runc ignores those with a warning, and
// so do the pods that name them. It keeps out what is no name at all.
var capabilityName = regexp.MustCompile(`^CAP_[A-Z0-9_]{1,64}$`)

const allCapabilities = "CAP_ALL"

// capabilities returns the process's sets. Ambient and inheritable stay empty, AddAmbient
// included: what capabilities of a non-root user mean is not settled in Kubernetes
// (kubernetes#56374), and containerd clears them too.
func (c *Container) capabilities() (*specs.LinuxCapabilities, error) {
	set := c.everyCapability()
	if !c.Security.Privileged {
		var err error
		if set, err = c.adjustedCapabilities(); err != nil {
			return nil, err
		}
	}
	return &specs.LinuxCapabilities{
		Bounding:  set,
		Effective: slices.Clone(set),
		Permitted: slices.Clone(set),
	}, nil
}

// adjustedCapabilities applies "ALL" first, so that single names still count beside it, and
// drops last.
func (c *Container) adjustedCapabilities() ([]string, error) {
	add, err := capabilityNames(c.Security.Capabilities.Add)
	if err != nil {
		return nil, err
	}
	drop, err := capabilityNames(c.Security.Capabilities.Drop)
	if err != nil {
		return nil, err
	}
	set := defaultCapabilities()
	if slices.Contains(add, allCapabilities) {
		set = c.everyCapability()
	}
	if slices.Contains(drop, allCapabilities) {
		set = nil
	}
	for _, name := range add {
		if name != allCapabilities && !slices.Contains(set, name) {
			set = append(set, name)
		}
	}
	return slices.DeleteFunc(set, func(name string) bool { return slices.Contains(drop, name) }), nil
}

func (c *Container) everyCapability() []string {
	if c.Mapping != nil || c.Host.Capabilities == nil {
		return slices.Clone(cap.Known())
	}
	return slices.Clone(c.Host.Capabilities)
}

func capabilityNames(names []string) ([]string, error) {
	out := make([]string, 0, len(names))
	for _, name := range names {
		full := "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		if !capabilityName.MatchString(full) {
			return nil, invalidf("capability %q", name)
		}
		out = append(out, full)
	}
	return out, nil
}
