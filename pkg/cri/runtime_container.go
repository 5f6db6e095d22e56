package cri

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
)

func (s *runtimeService) CreateContainer(ctx context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	spec, err := containerSpec(req.GetConfig())
	if err != nil {
		return nil, err
	}
	sb, err := s.Sandboxes.Get(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	id, err := s.Containers.Create(ctx, sb, spec)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

func (s *runtimeService) StartContainer(ctx context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	if err := s.Containers.Start(ctx, req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopContainer takes an unknown id for done, as CRI says.
func (s *runtimeService) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	grace := seconds(req.GetTimeout())
	err := s.Containers.Stop(ctx, req.GetContainerId(), grace)
	if err != nil && !errors.Is(err, container.ErrNotFound) {
		return nil, err
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

// RemoveContainer takes an unknown id for done, as CRI says.
func (s *runtimeService) RemoveContainer(ctx context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	err := s.Containers.Remove(ctx, req.GetContainerId())
	if err != nil && !errors.Is(err, container.ErrNotFound) {
		return nil, err
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (s *runtimeService) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	resp := &runtimeapi.ListContainersResponse{}
	for _, rec := range s.Containers.List() {
		if matchesContainer(rec, req.GetFilter()) {
			resp.Containers = append(resp.Containers, listedContainer(rec))
		}
	}
	return resp, nil
}

func (s *runtimeService) ContainerStatus(ctx context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	rec, err := s.Containers.Get(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: containerStatus(rec)}
	if req.GetVerbose() {
		if resp.Info, err = s.containerInfo(ctx, rec); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

func (s *runtimeService) ReopenContainerLog(ctx context.Context, req *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	if err := s.Containers.ReopenLog(ctx, req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

func (s *runtimeService) UpdateContainerResources(ctx context.Context, req *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	if r := resources(req.GetLinux()); r != nil {
		if err := s.Containers.UpdateResources(ctx, req.GetContainerId(), *r); err != nil {
			return nil, err
		}
		return &runtimeapi.UpdateContainerResourcesResponse{}, nil
	}
	if _, err := s.Containers.Get(req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

func (s *runtimeService) ExecSync(ctx context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	if err := checkCommand(req.GetCmd()); err != nil {
		return nil, err
	}
	out, err := s.Containers.ExecSync(ctx, req.GetContainerId(), req.GetCmd(), seconds(req.GetTimeout()))
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ExecSyncResponse{Stdout: out.Stdout, Stderr: out.Stderr, ExitCode: out.ExitCode}, nil
}

// seconds converts a time span of the API; one that is negative is none, and one beyond what
// time.Duration holds, 292 years, ends there.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), math.MaxInt64/int64(time.Second))) * time.Second
}

// checkCommand refuses what the kernel cannot execute, before anything is made for it.
func checkCommand(cmd []string) error {
	if len(cmd) == 0 {
		return invalid("cmd is empty")
	}
	for i, arg := range cmd {
		if strings.ContainsRune(arg, 0) {
			return invalid("cmd[%d] is %q: it contains a NUL byte", i, arg)
		}
	}
	return nil
}
