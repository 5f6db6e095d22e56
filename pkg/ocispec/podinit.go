package ocispec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What is in the root filesystem of a pod's init: a file on which its program is mounted, and two
// directories. InitProgram is what `ps` shows in the pod.
const (
	InitProgram = "/userns-shim-init"
	initProc    = "/proc"
	initDev     = "/dev"
)

// InitDirs are the directories that the root filesystem of a pod's init has to have.
func InitDirs() []string { return []string{initProc, initDev} }

const (
	// initUser is who the init is in the pod: not root, so that no process of the pod may trace
	// it or look into its mounts without the capability to.
	initUser = 65535
	// initOOMScoreAdj makes the kernel choose the pod's containers first: killing the init ends all.
	initOOMScoreAdj = -998
	// initCPUShares is the smallest weight: it has nothing to do.
	initCPUShares = 2
)

// PodInit is the first process of a PID namespace that the containers of a pod share. It has an
// own PID and mount namespace, the pod's others, and nothing of the host but its program.
type PodInit struct {
	Identity Identity // of the pod; the init's own id is SandboxID
	// RootPath is a directory of the host that holds InitProgram and InitDirs, all empty, open to
	// all users and writable by none but root.
	RootPath string
	// Program is the host's path of the program.
	Program string
	// Namespaces are the pod's. PID is ignored.
	Namespaces  Namespaces
	Mapping     *IDMapping
	CgroupsPath string
	Host        Host
}

// BuildPodInit makes the specification of a pod's init. Its errors are those of Build.
func BuildPodInit(p PodInit) (*specs.Spec, error) {
	c := p.container()
	spec, err := Build(c)
	if err != nil {
		return nil, err
	}
	if err := checkPath("program of the pod's init", p.Program); err != nil {
		return nil, err
	}
	spec.Mounts = p.mounts()
	spec.Annotations[AnnotationContainerType] = "sandbox"
	delete(spec.Annotations, AnnotationContainerName)
	delete(spec.Annotations, AnnotationImageName)
	return spec, nil
}

func (p PodInit) container() Container {
	p.Namespaces.PID = Namespace{}
	c := Container{
		ID:       p.Identity.SandboxID,
		Identity: p.Identity,
		RootPath: p.RootPath,
		Process: Process{
			Command: []string{InitProgram},
			// The program allocates nothing after its start and has one thing to do at a time.
			Env: []KeyValue{{Key: "GOGC", Value: "off"}, {Key: "GOMAXPROCS", Value: "1"}},
		},
		User:       p.user(),
		Namespaces: p.Namespaces,
		Mapping:    p.Mapping,
		Security: Security{
			Capabilities:   Capabilities{Drop: []string{"ALL"}},
			ReadonlyRootfs: true,
			NoNewPrivs:     true,
			MaskedPaths:    initMasked(),
			ReadonlyPaths:  initReadonly(),
		},
		Resources:   &Resources{CPUShares: initCPUShares, OOMScoreAdj: initOOMScoreAdj},
		CgroupsPath: p.CgroupsPath,
		Host:        p.Host,
	}
	if p.Host.Seccomp {
		c.Security.Seccomp.Type = ProfileRuntimeDefault
	}
	return c
}

// user is initUser, or the last one that a shorter mapping has.
func (p PodInit) user() ResolvedUser {
	id := uint32(initUser)
	if p.Mapping != nil && p.Mapping.Length > 0 {
		id = min(id, p.Mapping.ContainerID+p.Mapping.Length-1)
	}
	return ResolvedUser{UID: id, GID: id}
}

// initMasked and initReadonly are what kubelet has masked and made read-only in containers: a
// neighbour that may trace the init reaches its proc through /proc/1/root. (proc's option subset=pid
// would do without both, but runc 1.5 reads /proc/sys before it runs a process.)
func initMasked() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
	}
}

func initReadonly() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// mounts are as few as the OCI runtime can do with: it covers what is masked with /dev/null.
func (p PodInit) mounts() []specs.Mount {
	return []specs.Mount{
		{
			Destination: initProc, Type: "proc", Source: "proc",
			Options: []string{"nosuid", "noexec", "nodev"},
		},
		{
			Destination: initDev, Type: "tmpfs", Source: "tmpfs",
			Options: []string{"ro", "nosuid", "noexec", "strictatime", "mode=755", "size=64k"},
		},
		{
			Destination: InitProgram, Type: "bind", Source: p.Program,
			Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev"},
		},
	}
}
