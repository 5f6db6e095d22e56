package ocispec

import (
	"path"
	"slices"
	"strings"
)

// CgroupDriver says who makes cgroups.
type CgroupDriver string

// The two drivers of kubelet and runc.
const (
	CgroupDriverCgroupfs CgroupDriver = "cgroupfs"
	CgroupDriverSystemd  CgroupDriver = "systemd"
)

// scopePrefix makes units "cri-containerd-<id>.scope": cAdvisor and node agents know a
// container of containerd by it.
const scopePrefix = "cri-containerd"

// CgroupsPath returns the cgroupsPath of a specification for the container id below parent,
// which has the syntax of cgroupfs with either driver, as CRI says. With systemd, which knows a
// slice by its name alone, it is "slice:prefix:id". An empty parent, as tools without kubelet
// send it, means /k8s.io or system.slice.
func CgroupsPath(driver CgroupDriver, parent, id string) (string, error) {
	if id == "" || strings.ContainsAny(id, "/:\x00") {
		return "", invalidf("container id %q", id)
	}
	if strings.ContainsAny(parent, ":\x00") || slices.Contains(strings.Split(parent, "/"), "..") {
		return "", invalidf("cgroup parent %q", parent)
	}
	switch driver {
	case CgroupDriverCgroupfs:
		if path.Join("/", parent) == "/" {
			parent = "k8s.io"
		}
		return path.Join("/", parent, id), nil
	case CgroupDriverSystemd:
		slice := path.Base(path.Join("/", parent))
		if slice == "/" {
			slice = "system.slice"
		}
		if !strings.HasSuffix(slice, ".slice") {
			return "", invalidf("cgroup parent %q is no slice, which the systemd driver needs", parent)
		}
		return strings.Join([]string{slice, scopePrefix, id}, ":"), nil
	default:
		return "", invalidf("cgroup driver %q", driver)
	}
}
