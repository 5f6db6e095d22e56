package ocispec

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// allMounts returns the specification's mounts and the rootfs propagation that they need.
// Defaults come first, then the pod's files and the client's mounts, parents before children.
// A mount of the client replaces a default and a file on the same path, and one on /dev
// replaces all defaults below it.
func (c *Container) allMounts() (mounts []specs.Mount, rootfsPropagation string, err error) {
	binds := c.deviceBinds()
	var taken []string
	for i := range c.Mounts {
		bind, err := c.bind(&c.Mounts[i])
		if err != nil {
			return nil, "", err
		}
		binds = append(binds, bind)
		taken = append(taken, path.Clean(bind.Destination))
		rootfsPropagation = widerPropagation(rootfsPropagation, c.Mounts[i].Propagation)
	}
	files, err := c.fileBinds()
	if err != nil {
		return nil, "", err
	}
	files = slices.DeleteFunc(files, func(m specs.Mount) bool { return slices.Contains(taken, m.Destination) })
	binds = append(files, binds...)
	slices.SortStableFunc(binds, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })

	replaced := func(m specs.Mount) bool {
		if slices.Contains(taken, "/dev") && strings.HasPrefix(m.Destination, "/dev/") {
			return true
		}
		return slices.ContainsFunc(binds, func(b specs.Mount) bool { return path.Clean(b.Destination) == m.Destination })
	}
	return append(slices.DeleteFunc(c.defaultMounts(), replaced), binds...), rootfsPropagation, nil
}

// depth counts the components of a path, so that a mount does not hide a deeper one.
func depth(p string) int {
	return strings.Count(path.Clean(p), "/")
}

func (c *Container) defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{
			Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
		},
		c.devpts(),
		{
			Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"},
		},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		c.sysfs(),
		c.cgroupfs(),
	}
}

// devpts gives terminals to group 5, which is "tty" in nearly every image; the kernel reads
// the number inside the user namespace, so it must be mapped there.
func (c *Container) devpts() specs.Mount {
	options := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	const tty = 5
	mapped := c.Mapping == nil
	if !mapped {
		_, err := c.Mapping.HostOf(tty)
		mapped = err == nil
	}
	if mapped {
		options = append(options, "gid=5")
	}
	return specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: options}
}

// sysfs may be mounted only by whoever owns the network namespace. A pod with a user namespace
// and the host's network does not, and sees the host's /sys, read-only with all below.
func (c *Container) sysfs() specs.Mount {
	if c.Mapping != nil && c.Namespaces.Network.Host {
		return specs.Mount{
			Destination: "/sys", Type: "bind", Source: "/sys",
			Options: []string{"rbind", "rro", "nosuid", "noexec", "nodev"},
		}
	}
	return specs.Mount{
		Destination: "/sys", Type: "sysfs", Source: "sysfs",
		Options: []string{"nosuid", "noexec", "nodev", c.kernelAccess()},
	}
}

// cgroupfs is of type cgroup on both versions: the OCI runtime finds out which it is.
func (c *Container) cgroupfs() specs.Mount {
	options := []string{"nosuid", "noexec", "nodev", "relatime", c.kernelAccess()}
	if !c.ownCgroupNamespace() {
		options = append(options, c.Host.CgroupOptions...)
	}
	return specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: options}
}

func (c *Container) kernelAccess() string {
	if c.Security.Privileged {
		return "rw"
	}
	return "ro"
}

// fileBinds follow a read-only root, /dev/shm apart: it is memory. That says nothing of its access either, for with "rw"
// the OCI runtime (runc 1.2 and later) takes nosuid, nodev and noexec from it, and without it stays as it is mounted.
func (c *Container) fileBinds() ([]specs.Mount, error) {
	access := c.access(c.Security.ReadonlyRootfs)
	var binds []specs.Mount
	for _, f := range []struct {
		source, destination string
		access              []string
	}{
		{c.Files.Hostname, "/etc/hostname", access},
		{c.Files.Hosts, "/etc/hosts", access},
		{c.Files.ResolvConf, "/etc/resolv.conf", access},
		{c.Files.Shm, "/dev/shm", nil},
	} {
		if f.source == "" {
			continue
		}
		if err := checkPath("file for "+f.destination, f.source); err != nil {
			return nil, err
		}
		binds = append(binds, specs.Mount{
			Destination: f.destination, Type: "bind", Source: f.source,
			Options: append([]string{"rbind", "rprivate"}, f.access...),
		})
	}
	return binds, nil
}
