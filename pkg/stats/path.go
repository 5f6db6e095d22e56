package stats

import (
	"path"
	"strings"
)

// CgroupPath returns where the cgroup of a specification's cgroupsPath is, below the root of the
// hierarchy. The systemd driver has "slice:prefix:name" there, which makes the unit
// prefix-name.scope in the slice.
func CgroupPath(cgroupsPath string) string {
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 {
		return path.Join("/", cgroupsPath)
	}
	return path.Join(SlicePath(parts[0]), parts[1]+"-"+parts[2]+".scope")
}

// SlicePath returns where systemd puts a slice: each dash in its name is one level, so that
// a-b.slice is /a.slice/a-b.slice. "-.slice" is the root.
func SlicePath(name string) string {
	stem := strings.TrimSuffix(name, ".slice")
	if stem == "-" || stem == "" {
		return "/"
	}
	var dir string
	for i, r := range stem {
		if r == '-' {
			dir += "/" + stem[:i] + ".slice"
		}
	}
	return dir + "/" + stem + ".slice"
}
