package e2e

import (
	"errors"
	"io"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
)

// streamed returns the ids that a stream sends, in its order, and in how many messages.
func streamed[Message, Item any](t *testing.T, stream grpc.ServerStreamingClient[Message], err error, items func(*Message) []Item, id func(Item) string) (ids []string, messages int) {
	t.Helper()
	for err == nil {
		var message *Message
		if message, err = stream.Recv(); err == nil {
			messages++
			for _, item := range items(message) {
				ids = append(ids, id(item))
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("stream: %v", err)
	}
	return ids, messages
}

// TestStreamedListsAgreeWithLists has more containers than one message takes, and filters that are combined.
func TestStreamedListsAgreeWithLists(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod, other := n.RunPod(t), n.RunPod(t)
	const many = 130
	var group errgroup.Group
	group.SetLimit(4)
	for i := range many {
		group.Go(func() error {
			in := pod
			if i%10 == 0 {
				in = other
			}
			config := in.ContainerConfig(image, func(c *runtimeapi.ContainerConfig) {
				c.Labels["third"], c.Labels["half"] = []string{"a", "b", "c"}[i%3], []string{"x", "y"}[i%2]
			})
			_, err := in.TryCreate(t.Context(), config)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	created := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_CREATED}
	exited := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_EXITED}
	labels := map[string]string{"third": "a", "half": "x"}
	for _, tc := range []struct {
		name   string
		filter *runtimeapi.ContainerFilter
		want   int
	}{
		{"none", nil, many},
		{"state", &runtimeapi.ContainerFilter{State: created}, many},
		{"another state", &runtimeapi.ContainerFilter{State: exited}, 0},
		{"two labels", &runtimeapi.ContainerFilter{LabelSelector: labels}, 22}, // multiples of six below 130
		{"pod", &runtimeapi.ContainerFilter{PodSandboxId: other.ID}, 13},
		{"prefix of a pod's id", &runtimeapi.ContainerFilter{PodSandboxId: other.ID[:20]}, 13},
		{"all together", &runtimeapi.ContainerFilter{PodSandboxId: other.ID, LabelSelector: labels, State: created}, 5}, // of thirty
		{"all but the state", &runtimeapi.ContainerFilter{PodSandboxId: other.ID, LabelSelector: labels, State: exited}, 0},
	} {
		list, err := n.Runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		var listed []string
		for _, c := range list.Containers {
			listed = append(listed, c.Id)
		}
		stream, err := n.Runtime.StreamContainers(t.Context(), &runtimeapi.StreamContainersRequest{Filter: tc.filter})
		ids, messages := streamed(t, stream, err, (*runtimeapi.StreamContainersResponse).GetContainers, (*runtimeapi.Container).GetId)
		if len(listed) != tc.want || !slices.Equal(listed, ids) {
			t.Errorf("filter %s: %d listed and %d streamed, want %d, the same", tc.name, len(listed), len(ids), tc.want)
		}
		if tc.want == many && messages < 2 {
			t.Errorf("%d containers came in %d messages", many, messages)
		}
	}
	stream, err := n.Runtime.StreamContainerStats(t.Context(), &runtimeapi.StreamContainerStatsRequest{})
	ids, messages := streamed(t, stream, err, (*runtimeapi.StreamContainerStatsResponse).GetContainerStats,
		func(s *runtimeapi.ContainerStats) string { return s.GetAttributes().GetId() })
	if len(ids) != many || messages < 2 {
		t.Errorf("stats of %d containers came in %d messages, want %d in several", len(ids), messages, many)
	}
	checkPodStream(t, n.Runtime, []string{pod.ID, other.ID})
}

func checkPodStream(t *testing.T, runtime runtimeapi.RuntimeServiceClient, want []string) {
	t.Helper()
	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	stream, err := runtime.StreamPodSandboxes(t.Context(), &runtimeapi.StreamPodSandboxesRequest{Filter: &runtimeapi.PodSandboxFilter{State: ready}})
	ids, _ := streamed(t, stream, err, (*runtimeapi.StreamPodSandboxesResponse).GetPodSandboxes, (*runtimeapi.PodSandbox).GetId)
	if !slices.Equal(ids, want) {
		t.Errorf("pods %q are streamed, want %q", ids, want)
	}
}
