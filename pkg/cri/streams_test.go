package cri

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sentPods is a stream that keeps how many pods each message has.
type sentPods struct {
	grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxesResponse]
	counts []int
}

func (s *sentPods) Send(m *runtimeapi.StreamPodSandboxesResponse) error {
	s.counts = append(s.counts, len(m.GetPodSandboxes()))
	return nil
}

func TestSendChunks(t *testing.T) {
	pods := func(count, annotation int) []*runtimeapi.PodSandbox {
		out := make([]*runtimeapi.PodSandbox, count)
		for i := range out {
			out[i] = &runtimeapi.PodSandbox{Annotations: map[string]string{"a": strings.Repeat("x", annotation)}}
		}
		return out
	}
	for _, tc := range []struct {
		name  string
		items []*runtimeapi.PodSandbox
		want  []int
	}{
		{"none", nil, nil},
		{"few", pods(3, 10), []int{3}},
		{"as many as fit", pods(200, 10), []int{100, 100}},
		{"one more", pods(201, 10), []int{100, 100, 1}},
		// What Kubernetes allows: 110 of them would not fit into a message.
		{"large", pods(40, 256<<10), []int{15, 15, 10}},
		{"larger than a message of several", pods(2, streamBytes+1), []int{1, 1}},
	} {
		stream := &sentPods{}
		err := sendChunks(stream, tc.items, func(items []*runtimeapi.PodSandbox) *runtimeapi.StreamPodSandboxesResponse {
			return &runtimeapi.StreamPodSandboxesResponse{PodSandboxes: items}
		})
		if err != nil || !slices.Equal(stream.counts, tc.want) {
			t.Errorf("%s: messages of %d pods, %v; want %d", tc.name, stream.counts, err, tc.want)
		}
	}
}
