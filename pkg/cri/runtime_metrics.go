package cri

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/stats"
	"github.com/userns-shim/userns-shim/pkg/stats/cadvisor"
)

func (s *runtimeService) ListMetricDescriptors(context.Context, *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	resp := &runtimeapi.ListMetricDescriptorsResponse{}
	for _, d := range s.metrics.Descriptors() {
		resp.Descriptors = append(resp.Descriptors, &runtimeapi.MetricDescriptor{Name: d.Name, Help: d.Help, LabelKeys: d.Labels})
	}
	return resp, nil
}

// ListPodSandboxMetrics has ready sandboxes and the containers of theirs that run.
func (s *runtimeService) ListPodSandboxMetrics(ctx context.Context, _ *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	pods, err := s.statsPods(s.readySandboxes(nil))
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ListPodSandboxMetricsResponse{}
	for i, usage := range s.Stats.Pods(ctx, targetsOf(pods)) {
		logUnread(ctx, "sandbox", pods[i].sandbox.ID, usage.Err)
		if usage.Err == nil {
			resp.PodMetrics = append(resp.PodMetrics, s.podMetrics(ctx, pods[i], usage))
		}
	}
	return resp, nil
}

func (s *runtimeService) StreamPodSandboxMetrics(_ *runtimeapi.StreamPodSandboxMetricsRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxMetricsResponse]) error {
	list, err := s.ListPodSandboxMetrics(stream.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		return err
	}
	return sendChunks(stream, list.GetPodMetrics(), func(items []*runtimeapi.PodSandboxMetrics) *runtimeapi.StreamPodSandboxMetricsResponse {
		return &runtimeapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: items}
	})
}

func (s *runtimeService) podMetrics(ctx context.Context, pod statsPod, usage stats.PodUsage) *runtimeapi.PodSandboxMetrics {
	md := pod.sandbox.Spec.Metadata
	id := cadvisor.Identity{Cgroup: pod.target.Cgroup, ID: pod.sandbox.ID, Namespace: md.Namespace, Pod: md.Name}
	var details stats.Details
	if usage.Own {
		details = s.Stats.PodDetails(pod.target, usage)
	}
	out := &runtimeapi.PodSandboxMetrics{
		PodSandboxId: pod.sandbox.ID,
		Metrics:      criMetrics(s.metrics.Pod(id, time.Now(), usage, details)),
	}
	for i, ctr := range usage.Containers {
		logUnread(ctx, "container", pod.containers[i].ID, ctr.Err)
		if ctr.Reading == nil {
			continue
		}
		details, err := s.Stats.Details(ctx, pod.target.Containers[i], ctr)
		logUnread(ctx, "container", pod.containers[i].ID, err)
		if err == nil {
			out.ContainerMetrics = append(out.ContainerMetrics, s.containerMetrics(id, pod, i, ctr, details))
		}
	}
	return out
}

// containerMetrics are those of the pod's container i.
func (s *runtimeService) containerMetrics(id cadvisor.Identity, pod statsPod, i int, usage stats.ContainerUsage, details stats.Details) *runtimeapi.ContainerMetrics {
	rec, target := pod.containers[i], pod.target.Containers[i]
	id.Cgroup, id.ID, id.Container, id.Image = target.Cgroup, rec.ID, rec.Spec.Metadata.Name, imageLabel(rec)
	return &runtimeapi.ContainerMetrics{
		ContainerId: rec.ID,
		Metrics:     criMetrics(s.metrics.Container(id, rec.StartedAt, time.Now(), usage, details)),
	}
}

// imageLabel is the image as the pod's author knows it: kubelet asks to run an id.
func imageLabel(rec container.Record) string { return cmp.Or(rec.Spec.UserImage, rec.Spec.Image) }

// criMetrics have the timestamp 0 when they were read for this request, as CRI says.
func criMetrics(metrics []cadvisor.Metric) []*runtimeapi.Metric {
	out := make([]*runtimeapi.Metric, len(metrics))
	for i, m := range metrics {
		kind := runtimeapi.MetricType_GAUGE
		if m.Counter {
			kind = runtimeapi.MetricType_COUNTER
		}
		out[i] = &runtimeapi.Metric{
			Name:        m.Name,
			Timestamp:   nanos(m.At),
			MetricType:  kind,
			LabelValues: m.Values,
			Value:       number(m.Value),
		}
	}
	return out
}
