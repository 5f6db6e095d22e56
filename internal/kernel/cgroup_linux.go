package kernel

import (
	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// CgroupMode is how cgroups are mounted below /sys/fs/cgroup.
type CgroupMode string

// The modes. Hybrid has a version 2 hierarchy without controllers beside those of version 1.
const (
	CgroupUnavailable CgroupMode = "unavailable"
	CgroupLegacy      CgroupMode = "legacy"
	CgroupHybrid      CgroupMode = "hybrid"
	CgroupUnified     CgroupMode = "unified"
)

func cgroupMode() CgroupMode {
	// The library takes the directory that sysfs has there for version 1.
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil || fs.Type == unix.SYSFS_MAGIC {
		return CgroupUnavailable
	}
	switch cgroups.Mode() {
	case cgroups.Legacy:
		return CgroupLegacy
	case cgroups.Hybrid:
		return CgroupHybrid
	case cgroups.Unified:
		return CgroupUnified
	default:
		return CgroupUnavailable
	}
}
