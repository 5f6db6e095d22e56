package ocispec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// bind turns one mount of the client into a mount of the specification.
//
// An idmapped mount carries the option "idmap" without mappings: the OCI runtime then takes
// the container's own user namespace, which is the pod's pin. It idmaps the top mount only, as
// containerd and CRI-O do. "ridmap" would fail for every volume with a submount that cannot be
// idmapped (a hostPath "/" has proc below it); a submount without idmap is safe, its files
// just appear as owned by the overflow id.
func (c *Container) bind(m *Mount) (specs.Mount, error) {
	dst := path.Clean(m.ContainerPath)
	if err := c.checkBind(m); err != nil {
		return specs.Mount{}, err
	}
	propagation := m.Propagation
	if propagation == PropagationPrivate {
		propagation = "rprivate"
	}
	options := []string{"rbind", string(propagation)}
	if m.RecursiveReadOnly {
		options = append(options, "rro")
	} else {
		options = append(options, c.access(m.Readonly)...)
	}
	options = append(options, m.Options...)
	if m.IDMapped {
		options = append(options, "idmap")
	}
	return specs.Mount{Destination: dst, Type: "bind", Source: m.HostPath, Options: options}, nil
}

// access returns the option for a bind mount's access. Where the source is mounted read-only,
// "rw" makes the container's mount writable in the host's user namespace, which pods on
// containerd rely on; in another one it is locked and the OCI runtime fails, so there a
// writable mount names no access and takes its source's.
func (c *Container) access(readonly bool) []string {
	switch {
	case readonly:
		return []string{"ro"}
	case c.Mapping != nil:
		return nil
	default:
		return []string{"rw"}
	}
}

func (c *Container) checkBind(m *Mount) error {
	if err := checkPath("container path of a mount", m.ContainerPath); err != nil {
		return err
	}
	if path.Clean(m.ContainerPath) == "/" {
		return invalidf("a mount of %s over the container's root", m.HostPath)
	}
	if err := checkPath("host path of the mount at "+m.ContainerPath, m.HostPath); err != nil {
		return err
	}
	if err := m.checkPropagation(c.Mapping != nil); err != nil {
		return err
	}
	if err := m.checkRecursiveReadOnly(c.Host.RecursiveReadOnly); err != nil {
		return err
	}
	if err := m.checkOptions(c.Mapping != nil); err != nil {
		return err
	}
	if m.IDMapped && c.Mapping == nil {
		return invalidf("idmapped mount of %s at %s without a user namespace", m.HostPath, m.ContainerPath)
	}
	return nil
}

func (m *Mount) checkPropagation(userns bool) error {
	switch m.Propagation {
	case PropagationPrivate, PropagationHostToContainer:
		return nil
	case PropagationBidirectional:
		if userns {
			return unsupportedf("bidirectional propagation of %s at %s: mounts made in a user namespace never reach the host; "+
				"use HostToContainer, or run the pod with hostUsers: true", m.HostPath, m.ContainerPath)
		}
		return nil
	default:
		return invalidf("propagation %q of the mount at %s", m.Propagation, m.ContainerPath)
	}
}

func (m *Mount) checkRecursiveReadOnly(supported bool) error {
	if !m.RecursiveReadOnly {
		return nil
	}
	switch {
	case !m.Readonly:
		return invalidf("mount at %s is recursively read-only, but not read-only", m.ContainerPath)
	case m.Propagation != PropagationPrivate:
		return invalidf("mount at %s is recursively read-only, which needs private propagation, not %s",
			m.ContainerPath, m.Propagation)
	case !supported:
		return fmt.Errorf("mount of %s at %s: %w", m.HostPath, m.ContainerPath, ErrRROUnsupported)
	}
	return nil
}

// bindOptions are what a client may add to a bind mount: flags of the mount itself, with an
// "r" in front for all below. Access, propagation and idmap have fields of their own, and
// everything else is either meaningless for a bind mount or data of a filesystem.
var bindOptions = []string{
	"noexec", "exec", "nodev", "dev", "nosuid", "suid", "nosymfollow", "symfollow",
	"noatime", "atime", "nodiratime", "diratime", "relatime", "norelatime", "strictatime", "nostrictatime",
}

// atimeOptions differ from what mounts have by default. The kernel locks how access times are kept
// on every mount that comes into a user namespace (MNT_LOCK_ATIME).
var atimeOptions = []string{"noatime", "nodiratime", "strictatime"}

func (m *Mount) checkOptions(userns bool) error {
	for _, o := range m.Options {
		if userns && (slices.Contains(atimeOptions, o) || slices.Contains(atimeOptions, strings.TrimPrefix(o, "r"))) {
			return unsupportedf("mount option %q of the mount at %s: access times cannot be changed in a user namespace; "+
				"mount the source so on the host, or run the pod with hostUsers: true", o, m.ContainerPath)
		}
		if !slices.Contains(bindOptions, o) && (!strings.HasPrefix(o, "r") || !slices.Contains(bindOptions, o[1:])) {
			return invalidf("mount option %q of the mount at %s", o, m.ContainerPath)
		}
	}
	return nil
}

// widerPropagation returns the propagation that the root needs for both; a slave or shared
// mount below a private root would get nothing.
func widerPropagation(root string, p Propagation) string {
	if p == PropagationPrivate || root == string(PropagationBidirectional) {
		return root
	}
	return string(p)
}

// CheckSource tells whether the mount that holds m's host path can propagate as m asks.
// optional are that mount's optional fields in mountinfo(5). It exists because the kernel
// takes rslave and rshared on a private mount and then propagates nothing, in silence.
func (m *Mount) CheckSource(optional string) error {
	fields := strings.Fields(optional)
	has := func(tag string) bool {
		return slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(f, tag) })
	}
	switch {
	case m.Propagation == PropagationBidirectional && !has("shared:"):
		return invalidf("host path %s is not on a shared mount, which bidirectional propagation needs", m.HostPath)
	case m.Propagation == PropagationHostToContainer && !has("shared:") && !has("master:"):
		return invalidf("host path %s is on a private mount, which propagation from the host cannot use", m.HostPath)
	}
	return nil
}
