package cri

import (
	"context"
	"errors"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

func (s *runtimeService) RunPodSandbox(ctx context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	spec, err := sandboxSpec(req.GetConfig(), req.GetRuntimeHandler(), cgroupDriver(s.Node.SystemdCgroup()))
	if err != nil {
		return nil, err
	}
	if spec.Namespaces.Network != sandbox.ModeNode {
		if err := s.Node.NetworkReady(ctx); err != nil {
			return nil, err
		}
	}
	rec, err := s.Sandboxes.Run(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: rec.ID}, nil
}

// StopPodSandbox stops the sandbox's containers first. An unknown id is done, as CRI says.
func (s *runtimeService) StopPodSandbox(ctx context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	rec, err := s.Sandboxes.Get(req.GetPodSandboxId())
	if errors.Is(err, sandbox.ErrNotFound) {
		return &runtimeapi.StopPodSandboxResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.stopSandbox(ctx, rec.ID); err != nil {
		return nil, err
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

func (s *runtimeService) stopSandbox(ctx context.Context, id string) error {
	if err := s.Sandboxes.Halt(id); err != nil {
		return err
	}
	if err := s.Containers.StopAll(ctx, id); err != nil {
		return err
	}
	return s.Sandboxes.Stop(ctx, id)
}

// RemovePodSandbox stops what still runs and removes the sandbox's containers first. An unknown
// id is done, as CRI says.
func (s *runtimeService) RemovePodSandbox(ctx context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	rec, err := s.Sandboxes.Get(req.GetPodSandboxId())
	if errors.Is(err, sandbox.ErrNotFound) {
		return &runtimeapi.RemovePodSandboxResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.Sandboxes.Halt(rec.ID); err != nil {
		return nil, err
	}
	if err := s.Containers.RemoveAll(ctx, rec.ID); err != nil {
		return nil, err
	}
	if err := s.Sandboxes.Remove(ctx, rec.ID); err != nil {
		return nil, err
	}
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (s *runtimeService) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	rec, err := s.Sandboxes.Get(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	// The time is from before the look at the containers: kubelet passes over an event that is older than what it knows.
	resp := &runtimeapi.PodSandboxStatusResponse{Status: podSandboxStatus(rec), Timestamp: time.Now().UnixNano()}
	resp.ContainersStatuses = s.statusesOf(rec.ID)
	if req.GetVerbose() {
		if resp.Info, err = s.sandboxInfo(rec); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

func (s *runtimeService) UpdatePodSandboxResources(ctx context.Context, req *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	err := s.Sandboxes.UpdateResources(ctx, req.GetPodSandboxId(), resources(req.GetOverhead()), resources(req.GetResources()))
	if err != nil {
		return nil, err
	}
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}

func (s *runtimeService) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	resp := &runtimeapi.ListPodSandboxResponse{}
	for _, rec := range s.Sandboxes.List() {
		if matchesSandbox(rec, req.GetFilter()) {
			resp.Items = append(resp.Items, podSandbox(rec))
		}
	}
	return resp, nil
}
