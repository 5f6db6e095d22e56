package sandbox

import (
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// Metadata names a sandbox the way kubelet does. The four fields together are unique on a node.
type Metadata struct {
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Attempt   uint32 `json:"attempt"`
}

// Mode says whose namespace a pod uses.
type Mode string

// The modes that a sandbox can have. ModeTarget and the sharing of one container's PID namespace
// belong to containers.
const (
	ModePod       Mode = "pod"
	ModeContainer Mode = "container"
	ModeNode      Mode = "node"
)

// UserNamespace is the client's wish for a pod's user namespace. Requested is nil when the
// client asks for a namespace of the pod's own and leaves the ids to the runtime.
type UserNamespace struct {
	Requested *ocispec.IDMapping `json:"requested,omitempty"`
}

// Namespaces are the modes of a pod's namespaces; User nil means the host's user namespace.
type Namespaces struct {
	Network Mode           `json:"network"`
	PID     Mode           `json:"pid"`
	IPC     Mode           `json:"ipc"`
	User    *UserNamespace `json:"user,omitempty"`
}

// Spec is the plain form of CRI's PodSandboxConfig with its runtime handler, validated.
type Spec struct {
	Metadata       Metadata              `json:"metadata"`
	Hostname       string                `json:"hostname,omitempty"`
	LogDirectory   string                `json:"logDirectory,omitempty"`
	DNS            *network.DNS          `json:"dns,omitempty"` // nil means a copy of the host's, as in containerd's plugin
	PortMappings   []network.PortMapping `json:"portMappings,omitempty"`
	Labels         map[string]string     `json:"labels,omitempty"`
	Annotations    map[string]string     `json:"annotations,omitempty"`
	RuntimeHandler string                `json:"runtimeHandler,omitempty"`
	CgroupParent   string                `json:"cgroupParent,omitempty"`
	Sysctls        map[string]string     `json:"sysctls,omitempty"`
	Namespaces     Namespaces            `json:"namespaces"`
	IDs            IDRequest             `json:"ids,omitzero"`
	Privileged     bool                  `json:"privileged,omitempty"`
	Seccomp        ocispec.Profile       `json:"seccomp,omitzero"`
	SELinux        *ocispec.SELinux      `json:"selinux,omitempty"`

	Resources *ocispec.Resources `json:"resources,omitempty"`
	Overhead  *ocispec.Resources `json:"overhead,omitempty"`
}
