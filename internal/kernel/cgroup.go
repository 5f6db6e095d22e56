package kernel

import "github.com/containerd/cgroups/v3"

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
