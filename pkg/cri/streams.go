package cri

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// How much one message of a streamed list has: few enough messages, and far below the limit of
// one. Kubernetes allows a pod 256 KiB of annotations, so the number alone does not bound it.
const (
	streamChunk = 100
	streamBytes = 4 << 20
)

// sendChunks streams a list. An empty list is a stream without a message, as CRI says.
func sendChunks[Item proto.Message, Message any](stream grpc.ServerStreamingServer[Message], items []Item, message func([]Item) *Message) error {
	for len(items) > 0 {
		n := chunkOf(items)
		if err := stream.Send(message(items[:n])); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// chunkOf is how many of the first items go into one message, at least one.
func chunkOf[Item proto.Message](items []Item) int {
	size := 0
	for i, item := range items[:min(len(items), streamChunk)] {
		if size += proto.Size(item); size > streamBytes && i > 0 {
			return i
		}
	}
	return min(len(items), streamChunk)
}

func (s *runtimeService) StreamPodSandboxes(req *runtimeapi.StreamPodSandboxesRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxesResponse]) error {
	list, err := s.ListPodSandbox(stream.Context(), &runtimeapi.ListPodSandboxRequest{Filter: req.GetFilter()})
	if err != nil {
		return err
	}
	return sendChunks(stream, list.GetItems(), func(items []*runtimeapi.PodSandbox) *runtimeapi.StreamPodSandboxesResponse {
		return &runtimeapi.StreamPodSandboxesResponse{PodSandboxes: items}
	})
}

func (s *runtimeService) StreamContainers(req *runtimeapi.StreamContainersRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamContainersResponse]) error {
	list, err := s.ListContainers(stream.Context(), &runtimeapi.ListContainersRequest{Filter: req.GetFilter()})
	if err != nil {
		return err
	}
	return sendChunks(stream, list.GetContainers(), func(items []*runtimeapi.Container) *runtimeapi.StreamContainersResponse {
		return &runtimeapi.StreamContainersResponse{Containers: items}
	})
}

func (s *imageService) StreamImages(req *runtimeapi.StreamImagesRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamImagesResponse]) error {
	list, err := s.ListImages(stream.Context(), &runtimeapi.ListImagesRequest{Filter: req.GetFilter()})
	if err != nil {
		return err
	}
	return sendChunks(stream, list.GetImages(), func(items []*runtimeapi.Image) *runtimeapi.StreamImagesResponse {
		return &runtimeapi.StreamImagesResponse{Images: items}
	})
}
