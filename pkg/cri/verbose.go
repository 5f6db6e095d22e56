package cri

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// sandboxInfo is the JSON of a verbose PodSandboxStatus. Its keys are those of containerd's CRI plugin,
// which tools of a node read; what a sandbox without a pause container does not have is empty.
type sandboxInfo struct {
	PID                uint32                         `json:"pid"` // 0 without a process
	ProcessStatus      string                         `json:"processStatus"`
	NetNamespaceClosed bool                           `json:"netNamespaceClosed"`
	Image              string                         `json:"image"`
	SnapshotKey        string                         `json:"snapshotKey"`
	Snapshotter        string                         `json:"snapshotter"`
	RuntimeHandler     string                         `json:"runtimeHandler"`
	RuntimeType        string                         `json:"runtimeType"`
	RuntimeOptions     runtimeOptions                 `json:"runtimeOptions"`
	Config             *runtimeapi.PodSandboxConfig   `json:"config"`
	RuntimeSpec        *specs.Spec                    `json:"runtimeSpec"`
	Overhead           *runtimeapi.ContainerResources `json:"overhead,omitempty"`
	Resources          *runtimeapi.ContainerResources `json:"resources,omitempty"`
	// Range is the pod's, absent where it uses the host's ids.
	Range *idpool.Range `json:"range,omitempty"`
	// RequestedRange is what the client sent, absent where it sent none, and Remapped why the pod could not have it.
	RequestedRange *idpool.Range `json:"requestedRange,omitempty"`
	Remapped       string        `json:"remapped,omitempty"`
}

// containerInfo is the JSON of a verbose ContainerStatus, with the keys of containerd's CRI plugin.
type containerInfo struct {
	SandboxID      string                      `json:"sandboxID"`
	PID            uint32                      `json:"pid"`
	Removing       bool                        `json:"removing"`
	SnapshotKey    string                      `json:"snapshotKey"`
	Snapshotter    string                      `json:"snapshotter"`
	RuntimeType    string                      `json:"runtimeType"`
	RuntimeOptions runtimeOptions              `json:"runtimeOptions"`
	Config         *runtimeapi.ContainerConfig `json:"config"`
	RuntimeSpec    *specs.Spec                 `json:"runtimeSpec"`
}

// runtimeOptions are those of the runc shim that are set, under its names.
type runtimeOptions struct {
	BinaryName    string `json:"binary_name,omitempty"`
	SystemdCgroup bool   `json:"systemd_cgroup,omitempty"`
}

func (s *runtimeService) sandboxInfo(rec sandbox.Record) (map[string]string, error) {
	info := sandboxInfo{
		PID:                uint32(rec.PID),
		NetNamespaceClosed: rec.Spec.Namespaces.Network != sandbox.ModeNode && rec.Pins.Network == "",
		RuntimeHandler:     rec.Spec.RuntimeHandler,
		RuntimeOptions:     runtimeOptions{SystemdCgroup: s.Node.SystemdCgroup()},
		Config:             sandboxConfigOf(rec),
		RuntimeSpec:        rec.RuntimeSpec(),
		Range:              rec.Range,
		RequestedRange:     rec.Requested(),
		Remapped:           rec.Remapped,
	}
	if rec.PID != 0 {
		info.ProcessStatus = "running"
	}
	if rec.Overhead != nil {
		info.Overhead = &runtimeapi.ContainerResources{Linux: resourcesOf(rec.Overhead)}
	}
	if rec.Resources != nil {
		info.Resources = &runtimeapi.ContainerResources{Linux: resourcesOf(rec.Resources)}
	}
	// A handler that the configuration has no longer leaves its fields empty.
	if h, err := s.Containers.Handler(rec); err == nil {
		info.Snapshotter, info.RuntimeType, info.RuntimeOptions.BinaryName = h.Snapshotter, h.Runtime, h.BinaryName
	}
	return verbose(info)
}

// containerInfo leaves out the specification of a container that containerd has lost.
func (s *runtimeService) containerInfo(ctx context.Context, rec container.Record) (map[string]string, error) {
	spec, err := s.Containers.Specification(ctx, rec.ID)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	info := containerInfo{
		SandboxID:      rec.SandboxID,
		PID:            rec.PID,
		SnapshotKey:    rec.ID,
		Snapshotter:    rec.Snapshotter,
		RuntimeOptions: runtimeOptions{SystemdCgroup: s.Node.SystemdCgroup()},
		Config:         containerConfigOf(rec),
		RuntimeSpec:    spec,
	}
	if sb, err := s.Sandboxes.Get(rec.SandboxID); err == nil {
		if h, err := s.Containers.Handler(sb); err == nil {
			info.RuntimeType, info.RuntimeOptions.BinaryName = h.Runtime, h.BinaryName
		}
	}
	return verbose(info)
}

// verbose renders an object for the info map of a verbose answer, under the key that crictl prints.
func verbose(v any) (map[string]string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode verbose information: %w", err)
	}
	return map[string]string{"info": string(data)}, nil
}
