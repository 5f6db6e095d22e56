package ocispec

import (
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Container is everything that a container's specification depends on, resolved already.
type Container struct {
	ID       string
	Identity Identity
	// RootPath is the absolute path where the container's root filesystem is mounted.
	RootPath string
	Process  Process
	User     ResolvedUser

	Namespaces Namespaces
	// Mapping is the extent of the pod's user namespace; nil means the host's user namespace.
	Mapping  *IDMapping
	Security Security
	// SELinux holds the labels that go into the specification, resolved with SELinuxOptions;
	// empty where the host runs without SELinux.
	SELinux SELinuxLabels

	// Resources may be nil: no limits, and an oom_score_adj that is inherited.
	Resources   *Resources
	CgroupsPath string // see CgroupsPath

	Files   PodFiles
	Mounts  []Mount
	Devices []HostDevice // of a privileged container: all of the host's

	// ConfineDevices holds a privileged container to Devices too.
	ConfineDevices bool

	// Annotations are passed on to the OCI runtime; CRI's own win over them.
	Annotations map[string]string
	Host        Host
}

// Identity names the container and its pod in the annotations that shims and node tools read.
type Identity struct {
	SandboxID        string // groups the pod's containers into one shim
	SandboxName      string
	SandboxNamespace string
	SandboxUID       string
	ContainerName    string
	ImageName        string // as the client named it
}

// Process says what runs: the image's configuration and what the request puts over it.
type Process struct {
	Image      imagespec.ImageConfig
	Command    []string // replaces the image's entrypoint, and its arguments
	Args       []string // replaces the image's arguments
	WorkingDir string
	Env        []KeyValue // wins over the image's
	TTY        bool
	Hostname   string // for $HOSTNAME: the pod's, or the node's with the host's UTS namespace
}

// Namespace is one that the container joins: the host's, or the one pinned at Path. The zero
// value is a new one for PID and an error for the others, which the pod's containers share.
type Namespace struct {
	Host bool
	Path string
}

// Namespaces are those of a container. Mount is always new; cgroup is new on cgroup v2, except
// for a privileged container.
type Namespaces struct {
	User    string // path of the pinned namespace; empty with the host's
	Network Namespace
	IPC     Namespace
	UTS     Namespace
	PID     Namespace
}

// SELinuxLabels are complete labels of the process and of its mounts.
type SELinuxLabels struct {
	Process string `json:"process,omitempty"`
	Mount   string `json:"mount,omitempty"`
}

// PodFiles are host paths of what a pod's containers share. They belong to the pod's root on
// disk and are not idmapped. A mount of the client on the same container path replaces one;
// an empty path leaves it out, and an empty Shm means a tmpfs of the container's own.
type PodFiles struct {
	Hostname   string // /etc/hostname
	Hosts      string // /etc/hosts
	ResolvConf string // /etc/resolv.conf
	Shm        string // /dev/shm
}

// HostDevice is an existing device node of the host, for Node.Path of the container. Access
// is for the devices cgroup, made of "r", "w" and "m".
type HostDevice struct {
	HostPath string
	Node     specs.LinuxDevice
	Access   string
}

// Host is what the node's kernel, its configuration and its OCI runtime can do.
type Host struct {
	CgroupV2 bool // the unified hierarchy at /sys/fs/cgroup
	// CgroupOptions are the options of the host's cgroup2 superblock (nsdelegate,
	// memory_recursiveprot) that a mount in the host's cgroup namespace has to repeat,
	// because it would otherwise take them from the host.
	CgroupOptions []string
	Swap          bool // the memory controller accounts swap
	Hugetlb       bool // without the hugetlb controller, limits of huge pages are left out

	Seccomp bool
	// SeccompUnset is the profile of a container whose client names none; unset means unconfined.
	SeccompUnset Profile
	// ReadProfile reads the file of a seccomp profile of type ProfileLocalhost.
	ReadProfile func(path string) ([]byte, error)

	// AppArmorDefault is the name of the loaded profile for ProfileRuntimeDefault; empty means
	// that the host has no AppArmor.
	AppArmorDefault string
	// AppArmorLoaded tells whether a profile is loaded; nil leaves it to the OCI runtime.
	AppArmorLoaded func(name string) (bool, error)

	RecursiveReadOnly bool // kernel 5.12, and an OCI runtime that knows "rro"

	// Capabilities are those of the daemon, which bound "ALL" in the host's user namespace;
	// nil means all that are known. In a user namespace of its own a process has them all.
	Capabilities []string

	// RestrictOOMScoreAdj raises a score below OOMScoreAdj, the daemon's own, to it: lowering
	// needs CAP_SYS_RESOURCE in the initial user namespace.
	RestrictOOMScoreAdj bool
	OOMScoreAdj         int
}
