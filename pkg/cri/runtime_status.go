package cri

import (
	"context"
	"encoding/json"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What Version answers: kubelet's own API version is the one that kubelet checks for.
const (
	kubeAPIVersion = "0.1.0"
	runtimeName    = "userns-shim"
	criVersion     = "v1"
)

// The reasons beside a condition that does not hold.
const (
	reasonContainerdUnavailable = "ContainerdUnavailable"
	reasonNetworkNotReady       = "NetworkPluginNotReady"
	reasonNRINotServed          = "NRINotServed"
)

// nriReady is a condition of ours; kubelet looks at CRI's own only.
const nriReady = "NRIReady"

// Handler is a runtime handler with the features that it has on this node, in truth.
type Handler struct {
	Name                    string
	UserNamespaces          bool
	RecursiveReadOnlyMounts bool
	// NoUserNamespaces is why UserNamespaces is false, nil when it is true.
	NoUserNamespaces error
}

// Node tells what this node can do.
type Node interface {
	// RuntimeReady is nil when containerd answers.
	RuntimeReady(ctx context.Context) error
	// NetworkReady is nil when pods can be attached to a network.
	NetworkReady(ctx context.Context) error
	// Handlers are all runtime handlers, "" and the default's own name included.
	Handlers(ctx context.Context) ([]Handler, error)
	// SystemdCgroup says whether systemd makes the cgroups.
	SystemdCgroup() bool
	// Details is what a verbose status shows beside all that, as JSON can hold it.
	Details(ctx context.Context) any
}

func (s *runtimeService) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version:           kubeAPIVersion,
		RuntimeName:       runtimeName,
		RuntimeVersion:    s.Options.Version,
		RuntimeApiVersion: criVersion,
	}, nil
}

func (s *runtimeService) Status(ctx context.Context, req *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	runtimeErr := s.Node.RuntimeReady(ctx)
	handlers, err := s.Node.Handlers(ctx)
	// Without containerd nobody can be asked for the handlers: the condition says why.
	if err != nil && runtimeErr == nil {
		return nil, fmt.Errorf("probe runtime handlers: %w", err)
	}
	resp := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			condition(runtimeapi.RuntimeReady, runtimeErr, reasonContainerdUnavailable),
			condition(runtimeapi.NetworkReady, s.Node.NetworkReady(ctx), reasonNetworkNotReady),
		}},
		Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, UserNamespacesHostNetwork: true, MountOptions: true},
	}
	resp.Status.Conditions = append(resp.Status.Conditions, poolCondition(s.Capacity()))
	if s.PluginsReady != nil {
		resp.Status.Conditions = append(resp.Status.Conditions, condition(nriReady, s.PluginsReady(), reasonNRINotServed))
	}
	for _, h := range handlers {
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{
			Name: h.Name,
			Features: &runtimeapi.RuntimeHandlerFeatures{
				UserNamespaces:          h.UserNamespaces,
				RecursiveReadOnlyMounts: h.RecursiveReadOnlyMounts,
			},
		})
	}
	if req.GetVerbose() {
		if resp.Info, err = details(s.Node.Details(ctx)); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

func condition(kind string, err error, reason string) *runtimeapi.RuntimeCondition {
	if err == nil {
		return &runtimeapi.RuntimeCondition{Type: kind, Status: true}
	}
	return &runtimeapi.RuntimeCondition{Type: kind, Reason: reason, Message: err.Error()}
}

func details(v any) (map[string]string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode status details: %w", err)
	}
	return map[string]string{"config": string(data)}, nil
}

func (s *runtimeService) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	driver := runtimeapi.CgroupDriver_CGROUPFS
	if s.Node.SystemdCgroup() {
		driver = runtimeapi.CgroupDriver_SYSTEMD
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}

// UpdateRuntimeConfig is kubelet telling the node's pod CIDR, which CNI configurations of today
// do not take from the runtime.
func (s *runtimeService) UpdateRuntimeConfig(context.Context, *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}
