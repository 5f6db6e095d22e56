package ocispec

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// HostOf returns the host id of an id inside the user namespace.
func (m IDMapping) HostOf(id uint32) (uint32, error) {
	if id < m.ContainerID || uint64(id)-uint64(m.ContainerID) >= uint64(m.Length) {
		return 0, fmt.Errorf("id %d, mapped are %d ids from %d: %w", id, m.Length, m.ContainerID, ErrIDNotMapped)
	}
	return m.HostID + (id - m.ContainerID), nil
}

func (m IDMapping) spec() []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Length}}
}

// HostIDs returns the host ids of the user, for files and pipes made for its process. A nil
// mapping is the host's user namespace. The error wraps ErrIDNotMapped.
func (u ResolvedUser) HostIDs(m *IDMapping) (uid, gid uint32, err error) {
	if m == nil {
		return u.UID, u.GID, nil
	}
	if uid, err = m.HostOf(u.UID); err != nil {
		return 0, 0, fmt.Errorf("uid of user: %w", err)
	}
	if gid, err = m.HostOf(u.GID); err != nil {
		return 0, 0, fmt.Errorf("gid of user: %w", err)
	}
	return uid, gid, nil
}

// checkIDs finds out here what the kernel would answer with EINVAL, in setresuid and setgroups.
func (c *Container) checkIDs() error {
	if c.Mapping == nil {
		return nil
	}
	if _, _, err := c.User.HostIDs(c.Mapping); err != nil {
		return err
	}
	for _, gid := range c.User.AdditionalGids {
		if _, err := c.Mapping.HostOf(gid); err != nil {
			return fmt.Errorf("supplemental group: %w", err)
		}
	}
	return nil
}
