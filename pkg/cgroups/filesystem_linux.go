package cgroups

import "golang.org/x/sys/unix"

// isCgroup says whether a path exists in a file system of cgroups.
func isCgroup(path string) bool {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return false
	}
	return fs.Type == unix.CGROUP_SUPER_MAGIC || fs.Type == unix.CGROUP2_SUPER_MAGIC
}
