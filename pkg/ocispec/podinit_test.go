package ocispec

import (
	"errors"
	"testing"
)

// podInit is the init of the pod that a container is in.
func podInit(c Container) PodInit {
	c.Host.RestrictOOMScoreAdj, c.Host.OOMScoreAdj = true, -500
	c.Host.Seccomp = false // the rules follow the library; see seccomp-default
	c.Identity.ContainerName, c.Identity.ImageName = "", ""
	return PodInit{
		Identity:    c.Identity,
		RootPath:    "/run/userns-shim/init",
		Program:     "/usr/local/bin/userns-shim-init",
		Namespaces:  c.Namespaces,
		Mapping:     c.Mapping,
		CgroupsPath: "/kubepods/besteffort/pod0a1b/5a4db0",
		Host:        c.Host,
	}
}

// podInitCases are compared with golden files, like goldenCases.
var podInitCases = map[string]func() Container{"pod-init": hostPod, "pod-init-userns": usernsPod}

func TestPodInitGolden(t *testing.T) {
	for name, pod := range podInitCases {
		t.Run(name, func(t *testing.T) {
			spec, err := BuildPodInit(podInit(pod()))
			if err != nil {
				t.Fatal(err)
			}
			checkGolden(t, spec)
		})
	}
}

func TestPodInitHasSeccomp(t *testing.T) {
	p := podInit(usernsPod())
	p.Host.Seccomp = true
	spec, err := BuildPodInit(p)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Linux.Seccomp == nil || len(spec.Linux.Seccomp.Syscalls) == 0 {
		t.Errorf("seccomp filter is %v", spec.Linux.Seccomp)
	}
}

// Whatever the caller says of the PID namespace, the init makes a new one.
func TestPodInitMakesItsPIDNamespace(t *testing.T) {
	p := podInit(hostPod())
	for _, pid := range []Namespace{{}, {Host: true}, {Path: "/proc/7/ns/pid"}} {
		p.Namespaces.PID = pid
		spec, err := BuildPodInit(p)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, ns := range spec.Linux.Namespaces {
			found = found || ns.Type == "pid" && ns.Path == ""
		}
		if !found {
			t.Errorf("with %+v the namespaces are %v", pid, spec.Linux.Namespaces)
		}
	}
}

func TestPodInitUserIsMapped(t *testing.T) {
	for length, want := range map[uint32]uint32{1: 0, 1000: 999, 65536: 65535, 1 << 20: 65535} {
		p := podInit(usernsPod())
		p.Mapping.Length = length
		spec, err := BuildPodInit(p)
		if err != nil {
			t.Errorf("a mapping of %d ids: %v", length, err)
			continue
		}
		if got := spec.Process.User; got.UID != want || got.GID != want {
			t.Errorf("with %d ids the init is %d:%d, want %d", length, got.UID, got.GID, want)
		}
	}
}

func TestPodInitRefusesRelativePaths(t *testing.T) {
	program, root := podInit(hostPod()), podInit(hostPod())
	program.Program, root.RootPath = "userns-shim-init", "init"
	for _, p := range []PodInit{program, root} {
		if _, err := BuildPodInit(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("program %s, root %s: got %v, want ErrInvalid", p.Program, p.RootPath, err)
		}
	}
}
