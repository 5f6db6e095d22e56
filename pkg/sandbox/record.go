package sandbox

import (
	"cmp"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
)

// Phase is how far a sandbox has come.
type Phase string

// The phases in their order. A record in PhaseCreating whose creator is gone is torn down at
// start; PhaseStopped is CRI's NOTREADY.
const (
	PhaseCreating Phase = "creating"
	PhaseReady    Phase = "ready"
	PhaseStopped  Phase = "stopped"
)

// Record is what is durable of a sandbox. Paths, pins and containerd ids all derive from ID, so
// that teardown needs nothing else.
type Record struct {
	ID        string    `json:"id"`
	Spec      Spec      `json:"spec"`
	Phase     Phase     `json:"phase"`
	CreatedAt time.Time `json:"createdAt"`
	// BootID is the boot in which the pins were made; in another one they are gone.
	BootID string `json:"bootId"`
	// Range is nil for a pod in the host's user namespace.
	Range *idpool.Range `json:"range,omitempty"`
	// Remapped says why Range is not the one that the client sent, empty where it is or the pod asked for
	// something else.
	Remapped string `json:"remapped,omitempty"`
	// ShimGroup names the shim that the pod shares with others; empty where it has its own.
	ShimGroup string `json:"shimGroup,omitempty"`
	// NetworkUp is set before CNI ADD and cleared once CNI DEL has succeeded.
	NetworkUp bool `json:"networkUp,omitempty"`
	// ProcessUp is set before the process of a shared PID namespace is started, and cleared once
	// everything of it is gone.
	ProcessUp bool `json:"processUp,omitempty"`
	// PID is the host's number of that process, 0 where the sandbox has none.
	PID int `json:"pid"`
	// IPs are the pod's addresses, the primary one first; none for a pod in the host's network.
	IPs []netip.Addr `json:"ips,omitempty"`
	// Overhead and Resources are the last of UpdateResources; until then Spec has them.
	Overhead  *ocispec.Resources `json:"overhead,omitempty"`
	Resources *ocispec.Resources `json:"resources,omitempty"`
	// SELinux holds the labels of the pod, empty on a host without SELinux.
	SELinux ocispec.SELinuxLabels `json:"selinux,omitzero"`
	// Pins are the paths of the namespaces that the pod owns, empty where it uses the host's.
	Pins ns.Pins `json:"pins,omitzero"`
}

// Key is the id. This and the next three are what state.Table goes by.
func (r Record) Key() string { return r.ID }

// Name is that of the pod with the attempt.
func (r Record) Name() string { return r.Spec.Metadata.key() }

// Created is when the sandbox was requested.
func (r Record) Created() time.Time { return r.CreatedAt }

// Hidden sandboxes are still being made.
func (r Record) Hidden() bool { return r.Phase == PhaseCreating }

// Group names the shim that serves the pod.
func (r Record) Group() string { return cmp.Or(r.ShimGroup, r.ID) }

// Mapping is the effective mapping of the pod's user namespace, nil for the host's.
func (r Record) Mapping() *ocispec.IDMapping {
	if r.Range == nil {
		return nil
	}
	return &ocispec.IDMapping{ContainerID: 0, HostID: r.Range.Start, Length: r.Range.Length}
}

// Requested is the range that the client sent, nil for none.
func (r Record) Requested() *idpool.Range {
	if r.Spec.Namespaces.User == nil || r.Spec.Namespaces.User.Requested == nil {
		return nil
	}
	sent := r.Spec.Namespaces.User.Requested
	return &idpool.Range{Start: sent.HostID, Length: sent.Length}
}

// rangeText is the range for the log, or that the pod uses the host's ids.
func (r Record) rangeText() string {
	if r.Range == nil {
		return "host"
	}
	return r.Range.String()
}

// Paths are where a sandbox keeps its files.
type Paths struct {
	Dir        string // everything below belongs to the sandbox
	Namespaces string
	PID        string // pin of the shared PID namespace
	Shm        string
	ResolvConf string
	Hostname   string
	Hosts      string // missing in pods on a host without /etc/hosts, and in those made before there was this file
}

// PathsOf derives the paths of a sandbox from the state directory.
func PathsOf(stateDir, id string) Paths {
	dir := filepath.Join(stateDir, "sandboxes", id)
	return Paths{
		Dir:        dir,
		Namespaces: filepath.Join(dir, "ns"),
		PID:        filepath.Join(dir, "ns", "pid"),
		Shm:        filepath.Join(dir, "shm"),
		ResolvConf: filepath.Join(dir, "resolv.conf"),
		Hostname:   filepath.Join(dir, "hostname"),
		Hosts:      filepath.Join(dir, "hosts"),
	}
}
