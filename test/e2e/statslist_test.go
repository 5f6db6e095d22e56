package e2e

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

func listStats(t *testing.T, n *nodetest.Node, filter *runtimeapi.ContainerStatsFilter) map[string]*runtimeapi.ContainerStats {
	t.Helper()
	resp, err := n.Runtime.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{Filter: filter})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*runtimeapi.ContainerStats{}
	for _, s := range resp.Stats {
		out[s.Attributes.Id] = s
	}
	return out
}

func TestStatsFilters(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	labelled := func(value string) nodetest.ContainerOption {
		return func(cfg *runtimeapi.ContainerConfig) { cfg.Labels["colour"] = value }
	}
	pod, other := n.RunPod(t), n.RunPod(t)
	red, blue := pod.Run(t, image, labelled("red")).ID, pod.Run(t, image, labelled("blue")).ID
	away := other.Run(t, image, labelled("red")).ID
	for _, tc := range []struct {
		name   string
		filter *runtimeapi.ContainerStatsFilter
		want   []string
	}{
		{"none", nil, []string{red, blue, away}},
		{"empty", &runtimeapi.ContainerStatsFilter{}, []string{red, blue, away}},
		{"id", &runtimeapi.ContainerStatsFilter{Id: blue}, []string{blue}},
		{"prefix of an id", &runtimeapi.ContainerStatsFilter{Id: blue[:20]}, []string{blue}},
		{"unknown id", &runtimeapi.ContainerStatsFilter{Id: strings.Repeat("f", 64)}, nil},
		{"pod", &runtimeapi.ContainerStatsFilter{PodSandboxId: pod.ID}, []string{red, blue}},
		{"label", &runtimeapi.ContainerStatsFilter{LabelSelector: map[string]string{"colour": "red"}}, []string{red, away}},
		{"all together", &runtimeapi.ContainerStatsFilter{PodSandboxId: pod.ID, LabelSelector: map[string]string{"colour": "red"}}, []string{red}},
	} {
		got := listStats(t, n, tc.filter)
		if len(got) != len(tc.want) {
			t.Errorf("filter %s: %d stats, want %d", tc.name, len(got), len(tc.want))
		}
		for _, id := range tc.want {
			if got[id].GetCpu() == nil || got[id].GetMemory() == nil {
				t.Errorf("filter %s: stats of %s are %v", tc.name, id, got[id])
			}
		}
	}
	checkPodFilters(t, n, pod, other)
	checkStreams(t, n, 3, 2)
}

func checkPodFilters(t *testing.T, n *nodetest.Node, pod, other *nodetest.Pod) {
	t.Helper()
	for _, tc := range []struct {
		name   string
		filter *runtimeapi.PodSandboxStatsFilter
		want   []string
	}{
		{"none", nil, []string{pod.ID, other.ID}},
		{"prefix of an id", &runtimeapi.PodSandboxStatsFilter{Id: pod.ID[:20]}, []string{pod.ID}},
		{"label", &runtimeapi.PodSandboxStatsFilter{LabelSelector: pod.Request.Config.Labels}, []string{pod.ID, other.ID}},
		{"another label", &runtimeapi.PodSandboxStatsFilter{LabelSelector: map[string]string{"no": "such"}}, nil},
	} {
		resp, err := n.Runtime.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range resp.Stats {
			got = append(got, s.Attributes.Id)
		}
		if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(tc.want))) {
			t.Errorf("filter %s: pods %q, want %q", tc.name, got, tc.want)
		}
	}
}

// checkStreams wants as much from the RPCs that stream.
func checkStreams(t *testing.T, n *nodetest.Node, containers, pods int) {
	t.Helper()
	ctx := t.Context()
	ctrs, err := n.Runtime.StreamContainerStats(ctx, &runtimeapi.StreamContainerStatsRequest{})
	if got := drain(t, ctrs, err, (*runtimeapi.StreamContainerStatsResponse).GetContainerStats); got != containers {
		t.Errorf("StreamContainerStats has %d, want %d", got, containers)
	}
	sandboxes, err := n.Runtime.StreamPodSandboxStats(ctx, &runtimeapi.StreamPodSandboxStatsRequest{})
	if got := drain(t, sandboxes, err, (*runtimeapi.StreamPodSandboxStatsResponse).GetPodSandboxStats); got != pods {
		t.Errorf("StreamPodSandboxStats has %d, want %d", got, pods)
	}
	metrics, err := n.Runtime.StreamPodSandboxMetrics(ctx, &runtimeapi.StreamPodSandboxMetricsRequest{})
	if got := drain(t, metrics, err, (*runtimeapi.StreamPodSandboxMetricsResponse).GetPodSandboxMetrics); got != pods {
		t.Errorf("StreamPodSandboxMetrics has %d, want %d", got, pods)
	}
}

func drain[Message, Item any](t *testing.T, stream grpc.ServerStreamingClient[Message], err error, items func(*Message) []Item) int {
	t.Helper()
	var n int
	for err == nil {
		var msg *Message
		if msg, err = stream.Recv(); err == nil {
			n += len(items(msg))
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("stream: %v", err)
	}
	return n
}

// As on containerd, a container that does not run is in the list with its layer, which still takes room.
func TestStatsOfWhatDoesNotRun(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	image := n.Image(t, labimage.Demo)
	created := pod.Create(t, image)
	exited := pod.Run(t, image, nodetest.Shell("dd if=/dev/zero of=/written bs=1048576 count=8"))
	exited.Wait(t)
	list := listStats(t, n, nil)
	for name, c := range map[string]*nodetest.Container{"created": created, "exited": exited} {
		got, ok := list[c.ID]
		if !ok || got.Cpu != nil || got.Memory != nil || got.WritableLayer == nil {
			t.Errorf("stats of a container that is %s are %v, want those of its layer alone", name, got)
		}
		_, err := n.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
		wantError(t, err, codes.FailedPrecondition)
	}
	wantNear(t, "the layer of the container that has ended", list[exited.ID].GetWritableLayer().GetUsedBytes().GetValue(), 8<<20)

	_, err := n.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: strings.Repeat("f", 64)})
	wantError(t, err, codes.NotFound)
	_, err = n.Runtime.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: strings.Repeat("f", 64)})
	wantError(t, err, codes.NotFound)
	pod.Stop(t)
	_, err = n.Runtime.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: pod.ID})
	wantError(t, err, codes.FailedPrecondition)
	resp, err := n.Runtime.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{})
	if err != nil || len(resp.Stats) != 0 {
		t.Errorf("ListPodSandboxStats has %v (%v), want no stopped pod", resp.GetStats(), err)
	}
	metrics, err := n.Runtime.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil || len(metrics.PodMetrics) != 0 {
		t.Errorf("ListPodSandboxMetrics has %v (%v), want no stopped pod", metrics.GetPodMetrics(), err)
	}
}

func TestStatsOfHostNetworkPod(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t, nodetest.HostNetwork)
	pod.Run(t, n.Image(t, labimage.Demo))
	got := onePodStats(t, n, pod.ID)
	if got.GetLinux().GetNetwork() != nil {
		t.Errorf("a pod in the host's network has the network stats %v", got.GetLinux().GetNetwork())
	}
	if got.GetLinux().GetMemory().GetUsageBytes().GetValue() == 0 || got.GetLinux().GetProcess().GetProcessCount().GetValue() != 1 {
		t.Errorf("the pod's stats are %v", got.GetLinux())
	}
}

// The stats of a pod whose containers come and go are never an error of the whole list.
func TestStatsWhileContainersComeAndGo(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	image := n.Image(t, labimage.Demo)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 15 {
			c, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image, nodetest.Command("true")))
			if err != nil {
				t.Error(err)
				return
			}
			if err := c.TryStart(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}()
	var lists int
	for {
		select {
		case <-done:
			if lists == 0 {
				t.Error("the containers were gone before any list")
			}
			return
		default:
		}
		listStats(t, n, nil)
		if _, err := n.Runtime.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{}); err != nil {
			t.Error(err)
		}
		if _, err := n.Runtime.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{}); err != nil {
			t.Error(err)
		}
		lists++
	}
}
