package container

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// Metadata names a container within its sandbox; name and attempt together are unique there.
type Metadata struct {
	Name    string `json:"name"`
	Attempt uint32 `json:"attempt"`
}

// PIDMode says whose processes a container sees.
type PIDMode string

// The PID modes of CRI's NamespaceOption.
const (
	PIDContainer PIDMode = ""
	PIDPod       PIDMode = "pod"
	PIDNode      PIDMode = "node"
	PIDTarget    PIDMode = "target"
)

// Namespaces are a container's own choices; network, IPC and UTS always are its sandbox's.
type Namespaces struct {
	PID      PIDMode `json:"pid,omitempty"`
	TargetID string  `json:"targetId,omitempty"`
	// Requested is the mapping that the client repeats for the container; it has to be the one
	// that it requested for the sandbox.
	Requested *ocispec.IDMapping `json:"requested,omitempty"`
}

// Spec is the plain form of CRI's ContainerConfig, validated.
type Spec struct {
	Metadata   Metadata           `json:"metadata"`
	Image      string             `json:"image"`               // what the client asks to run: an id, a name or a digest
	UserImage  string             `json:"userImage,omitempty"` // the image as the pod's author spelled it
	Command    []string           `json:"command,omitempty"`
	Args       []string           `json:"args,omitempty"`
	WorkingDir string             `json:"workingDir,omitempty"`
	Env        []ocispec.KeyValue `json:"env,omitempty"`
	Mounts     []ocispec.Mount    `json:"mounts,omitempty"`
	Devices    []ocispec.Device   `json:"devices,omitempty"`
	CDIDevices []string           `json:"cdiDevices,omitempty"`
	Labels     map[string]string  `json:"labels,omitempty"`

	Annotations map[string]string `json:"annotations,omitempty"`
	LogPath     string            `json:"logPath,omitempty"` // relative to the sandbox's log directory
	Stdin       bool              `json:"stdin,omitempty"`
	StdinOnce   bool              `json:"stdinOnce,omitempty"`
	TTY         bool              `json:"tty,omitempty"`
	StopSignal  string            `json:"stopSignal,omitempty"` // "SIGTERM"; empty is the image's

	Namespaces Namespaces         `json:"namespaces,omitzero"`
	Security   ocispec.Security   `json:"security,omitzero"`
	Resources  *ocispec.Resources `json:"resources,omitempty"`
}

// State is a container's state as CRI names it.
type State string

// The states. StateCreating is never reported: such a container does not exist yet for clients.
const (
	StateCreating State = "creating"
	StateCreated  State = "created"
	StateRunning  State = "running"
	StateExited   State = "exited"
	StateUnknown  State = "unknown"
)

// The reasons that kubelet and users know from other runtimes.
const (
	ReasonCompleted  = "Completed"
	ReasonError      = "Error"
	ReasonOOMKilled  = "OOMKilled"
	ReasonCannotRun  = "ContainerCannotRun" // the runtime refused its process
	ReasonStartError = "StartError"         // the node could not start it
	ReasonUnknown    = "Unknown"
)

// Record is what is durable of a container. Its paths, snapshot key and containerd ids all
// derive from ID.
type Record struct {
	ID        string `json:"id"`
	SandboxID string `json:"sandboxId"`
	Spec      Spec   `json:"spec"`

	ImageID     string               `json:"imageId"`
	ImageRef    string               `json:"imageRef"`
	Snapshotter string               `json:"snapshotter"`
	ShimGroup   string               `json:"shimGroup,omitempty"` // as of the sandbox
	StopSignal  string               `json:"stopSignal"`          // "SIGTERM"
	User        ocispec.ResolvedUser `json:"user"`                // ids inside the container
	LogPath     string               `json:"logPath,omitempty"`
	// SELinux holds the labels of the container, empty on a host without SELinux.
	SELinux ocispec.SELinuxLabels `json:"selinux,omitzero"`
	// OwnLabel says that they are not the pod's.
	OwnLabel bool `json:"ownLabel,omitempty"`
	// DeclaredVolumes are the container paths of Volumes in the image's config that no mount of
	// the client covers.
	DeclaredVolumes []string `json:"declaredVolumes,omitempty"`
	// ImageVolumes are the images that mounts of the client show.
	ImageVolumes []ImageVolume `json:"imageVolumes,omitempty"`

	// Restored is set for a container that goes on from a checkpoint.
	Restored *Restored `json:"restored,omitempty"`

	State      State     `json:"state"`
	PID        uint32    `json:"pid,omitempty"`
	CreatedAt  time.Time `json:"createdAt"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   int32     `json:"exitCode,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
}

// Key is the id. This and the next three are what state.Table goes by.
func (r Record) Key() string { return r.ID }

// Name is unique because a sandbox id has a fixed length and pkg/cri allows no slash in names.
func (r Record) Name() string {
	md := r.Spec.Metadata
	return strings.Join([]string{r.SandboxID, md.Name, strconv.FormatUint(uint64(md.Attempt), 10)}, "/")
}

// Created is when the container was requested.
func (r Record) Created() time.Time { return r.CreatedAt }

// Hidden containers are still being made.
func (r Record) Hidden() bool { return r.State == StateCreating }

// group names the shim that serves the container.
func (r Record) group() string { return cmp.Or(r.ShimGroup, r.SandboxID) }
