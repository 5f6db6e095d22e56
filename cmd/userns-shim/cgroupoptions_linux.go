package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// superblockOptions are those of cgroup2's superblock, of which a machine has one. Whoever mounts it again in the
// host's cgroup namespace without one of them takes that one from the whole host, as the OCI runtime would for each
// privileged container (kernel/cgroup/cgroup.c, apply_cgroup_root_flags).
var superblockOptions = []string{
	"nsdelegate", "favordynmods", "memory_localevents", "memory_recursiveprot", "memory_hugetlb_accounting", "pids_localevents",
}

// cgroup2Mounts lists where cgroup2 is mounted.
func cgroup2Mounts() ([]*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("find mounts of cgroup2: %w", err)
	}
	return mounts, nil
}

// cgroupOptions are what the host's cgroup2 has of them; all its mounts show the same.
func cgroupOptions(mounts []*mountinfo.Info) []string {
	if len(mounts) == 0 {
		return nil
	}
	options := strings.Split(mounts[0].VFSOptions, ",")
	return slices.DeleteFunc(options, func(o string) bool { return !slices.Contains(superblockOptions, o) })
}
