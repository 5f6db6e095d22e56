package cri

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/stats"
)

// ContainerStats is an error for a container that does not run, as on containerd.
func (s *runtimeService) ContainerStats(ctx context.Context, req *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	rec, err := s.Containers.Running(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	targets, err := s.statsContainers([]container.Record{rec})
	if err != nil {
		return nil, err
	}
	usage := s.Stats.Containers(ctx, targets)[0]
	if usage.Err != nil {
		return nil, fmt.Errorf("container %s: %w", rec.ID, usage.Err)
	}
	return &runtimeapi.ContainerStatsResponse{Stats: containerStats(rec, usage)}, nil
}

// ListContainerStats has containers that do not run too, with no more than their writable
// layer: that takes room on the disk until they are removed, which kubelet adds up.
func (s *runtimeService) ListContainerStats(ctx context.Context, req *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	filter := &runtimeapi.ContainerFilter{
		Id:            req.GetFilter().GetId(),
		PodSandboxId:  req.GetFilter().GetPodSandboxId(),
		LabelSelector: req.GetFilter().GetLabelSelector(),
	}
	var recs []container.Record
	for _, rec := range s.Containers.List() {
		if matchesContainer(rec, filter) {
			recs = append(recs, rec)
		}
	}
	targets, err := s.statsContainers(recs)
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ListContainerStatsResponse{}
	for i, usage := range s.Stats.Containers(ctx, targets) {
		logUnread(ctx, "container", recs[i].ID, usage.Err)
		resp.Stats = append(resp.Stats, containerStats(recs[i], usage))
	}
	return resp, nil
}

func (s *runtimeService) StreamContainerStats(req *runtimeapi.StreamContainerStatsRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamContainerStatsResponse]) error {
	list, err := s.ListContainerStats(stream.Context(), &runtimeapi.ListContainerStatsRequest{Filter: req.GetFilter()})
	if err != nil {
		return err
	}
	return sendChunks(stream, list.GetStats(), func(items []*runtimeapi.ContainerStats) *runtimeapi.StreamContainerStatsResponse {
		return &runtimeapi.StreamContainerStatsResponse{ContainerStats: items}
	})
}

// PodSandboxStats is an error for a sandbox that is not ready, as on containerd.
func (s *runtimeService) PodSandboxStats(ctx context.Context, req *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	rec, err := s.Sandboxes.Get(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if rec.Phase != sandbox.PhaseReady {
		return nil, fmt.Errorf("stats of sandbox %s: %w", rec.ID, sandbox.ErrNotReady)
	}
	pods, err := s.statsPods([]sandbox.Record{rec})
	if err != nil {
		return nil, err
	}
	usage := s.Stats.Pods(ctx, targetsOf(pods))[0]
	if usage.Err != nil {
		return nil, fmt.Errorf("sandbox %s: %w", rec.ID, usage.Err)
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: podSandboxStats(pods[0], usage)}, nil
}

// ListPodSandboxStats has sandboxes that are ready. One that cannot be read does not hide the
// others.
func (s *runtimeService) ListPodSandboxStats(ctx context.Context, req *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	filter := &runtimeapi.PodSandboxFilter{Id: req.GetFilter().GetId(), LabelSelector: req.GetFilter().GetLabelSelector()}
	pods, err := s.statsPods(s.readySandboxes(filter))
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ListPodSandboxStatsResponse{}
	for i, usage := range s.Stats.Pods(ctx, targetsOf(pods)) {
		logUnread(ctx, "sandbox", pods[i].sandbox.ID, usage.Err)
		if usage.Err == nil {
			resp.Stats = append(resp.Stats, podSandboxStats(pods[i], usage))
		}
	}
	return resp, nil
}

func (s *runtimeService) StreamPodSandboxStats(req *runtimeapi.StreamPodSandboxStatsRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxStatsResponse]) error {
	list, err := s.ListPodSandboxStats(stream.Context(), &runtimeapi.ListPodSandboxStatsRequest{Filter: req.GetFilter()})
	if err != nil {
		return err
	}
	return sendChunks(stream, list.GetStats(), func(items []*runtimeapi.PodSandboxStats) *runtimeapi.StreamPodSandboxStatsResponse {
		return &runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: items}
	})
}

// logUnread says what a list leaves out. What goes away meanwhile is no news.
func logUnread(ctx context.Context, kind, id string, err error) {
	if err != nil && !errors.Is(err, stats.ErrGone) {
		klog.FromContext(ctx).Error(err, "Stats not read", kind, id)
	}
}
