package ocispec

// ProfileType says where a security profile comes from, as in CRI's SecurityProfile.
type ProfileType string

// The profile types. The zero value means that the client named none.
const (
	ProfileUnset          ProfileType = ""
	ProfileRuntimeDefault ProfileType = "runtime/default"
	ProfileUnconfined     ProfileType = "unconfined"
	ProfileLocalhost      ProfileType = "localhost"
)

// Profile is a seccomp or AppArmor profile. Ref is set for ProfileLocalhost only:
// a file's path for seccomp, the name of a loaded profile for AppArmor.
type Profile struct {
	Type ProfileType `json:"type,omitempty"`
	Ref  string      `json:"ref,omitempty"`
}

// SELinux is the label that a client asks for; empty fields take the host's defaults.
type SELinux struct {
	User  string `json:"user,omitempty"`
	Role  string `json:"role,omitempty"`
	Type  string `json:"type,omitempty"`
	Level string `json:"level,omitempty"`
}

// GroupsPolicy says whether the groups that /etc/group of the image gives the user are
// merged into the supplemental groups (the zero value) or left out.
type GroupsPolicy string

// The two policies of CRI's SupplementalGroupsPolicy.
const (
	GroupsMerge  GroupsPolicy = ""
	GroupsStrict GroupsPolicy = "strict"
)

// User is who a container's process shall be, before the image's /etc/passwd was asked.
// UID and GID are ids inside the container; nil means not given.
type User struct {
	UID                *int64       `json:"uid,omitempty"`
	GID                *int64       `json:"gid,omitempty"`
	Name               string       `json:"name,omitempty"`
	SupplementalGroups []int64      `json:"supplementalGroups,omitempty"`
	GroupsPolicy       GroupsPolicy `json:"groupsPolicy,omitempty"`
}

// Capabilities are the changes to the default set, names with or without CAP_; "ALL" is honoured.
type Capabilities struct {
	Add        []string `json:"add,omitempty"`
	Drop       []string `json:"drop,omitempty"`
	AddAmbient []string `json:"addAmbient,omitempty"`
}

// Security is the plain form of CRI's LinuxContainerSecurityContext, namespaces aside.
type Security struct {
	Privileged     bool         `json:"privileged,omitempty"`
	Capabilities   Capabilities `json:"capabilities,omitempty"`
	User           User         `json:"user,omitempty"`
	ReadonlyRootfs bool         `json:"readonlyRootfs,omitempty"`
	NoNewPrivs     bool         `json:"noNewPrivs,omitempty"`
	MaskedPaths    []string     `json:"maskedPaths,omitempty"`
	ReadonlyPaths  []string     `json:"readonlyPaths,omitempty"`
	Seccomp        Profile      `json:"seccomp,omitempty"`
	AppArmor       Profile      `json:"appArmor,omitempty"`
	SELinux        *SELinux     `json:"selinux,omitempty"`
}

// HugepageLimit limits one huge page size ("2MB"), in bytes.
type HugepageLimit struct {
	PageSize string `json:"pageSize"`
	Limit    uint64 `json:"limit"`
}

// Resources is the plain form of CRI's LinuxContainerResources: microseconds for period and
// quota, bytes for memory. A zero number means not given, as in CRI.
type Resources struct {
	CPUPeriod      int64             `json:"cpuPeriod,omitempty"`
	CPUQuota       int64             `json:"cpuQuota,omitempty"`
	CPUShares      int64             `json:"cpuShares,omitempty"`
	CpusetCPUs     string            `json:"cpusetCpus,omitempty"`
	CpusetMems     string            `json:"cpusetMems,omitempty"`
	MemoryLimit    int64             `json:"memoryLimit,omitempty"`
	MemorySwap     int64             `json:"memorySwap,omitempty"`
	PidsLimit      int64             `json:"pidsLimit,omitempty"` // CRI has none; NRI plugins set it
	OOMScoreAdj    int64             `json:"oomScoreAdj,omitempty"`
	HugepageLimits []HugepageLimit   `json:"hugepageLimits,omitempty"`
	Unified        map[string]string `json:"unified,omitempty"`
}

// Device is a host device node that shall appear in the container; Permissions as in
// the devices cgroup ("rwm").
type Device struct {
	HostPath      string `json:"hostPath"`
	ContainerPath string `json:"containerPath"`
	Permissions   string `json:"permissions"`
}

// Propagation is CRI's MountPropagation.
type Propagation string

// The three propagations; the zero value is private.
const (
	PropagationPrivate         Propagation = ""
	PropagationHostToContainer Propagation = "rslave"
	PropagationBidirectional   Propagation = "rshared"
)

// Mount is a bind mount that the client asks for. IDMapped is decided by the container
// manager: the mount is made through the pod's user namespace (runc's "idmap" option).
type Mount struct {
	HostPath          string      `json:"hostPath"`
	ContainerPath     string      `json:"containerPath"`
	Readonly          bool        `json:"readonly,omitempty"`
	RecursiveReadOnly bool        `json:"recursiveReadOnly,omitempty"`
	Propagation       Propagation `json:"propagation,omitempty"`
	SELinuxRelabel    bool        `json:"selinuxRelabel,omitempty"`
	Options           []string    `json:"options,omitempty"`
	IDMapped          bool        `json:"idMapped,omitempty"`
	// Image, where it is set, is mounted instead of a path of the host. The container manager
	// puts into HostPath where the host has it.
	Image *MountedImage `json:"image,omitempty"`
}

// MountedImage is an image whose files are a volume: CRI's ImageSpec and image_sub_path.
type MountedImage struct {
	Image          string            `json:"image"`               // an id, a name or a digest
	UserImage      string            `json:"userImage,omitempty"` // the image as the pod's author spelled it
	RuntimeHandler string            `json:"runtimeHandler,omitempty"`
	Annotations    map[string]string `json:"annotations,omitempty"`
	SubPath        string            `json:"subPath,omitempty"` // a directory of the image; empty is its root
}

// IDMapping is one extent of a user namespace's uid_map and gid_map, which are equal.
type IDMapping struct {
	ContainerID uint32 `json:"containerId"`
	HostID      uint32 `json:"hostId"`
	Length      uint32 `json:"length"`
}

// KeyValue is one environment variable.
type KeyValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}
