package cri

import (
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// eventBacklog is how many events a subscriber may lag behind. One that lags further is cut
// off: kubelet then lists again and subscribes anew, so nothing is lost for good.
const eventBacklog = 1000

// What a subscriber gets that is cut off.
var (
	errLagging = status.Error(codes.ResourceExhausted, "events come faster than they are taken; list again")
	errEnding  = status.Error(codes.Unavailable, "userns-shim ends")
)

// Events hands what happens to every subscriber. The zero value is ready for use.
type Events struct {
	mu          sync.Mutex
	subscribers map[*subscriber]struct{} // guarded by mu
	closed      bool                     // guarded by mu
}

// subscriber is one who listens: its events as messages, in a channel that is closed when it is cut off.
type subscriber struct {
	render   func(sandbox.Event) *runtimeapi.ContainerEventResponse
	messages chan *runtimeapi.ContainerEventResponse
	reason   error // set before messages is closed
}

// Publish never blocks. Messages are made here and not when they are sent: each shows the pod as it was when the
// event happened, or at most what has happened since.
func (e *Events) Publish(event sandbox.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for sub := range e.subscribers {
		select {
		case sub.messages <- sub.render(event):
		default:
			e.cutLocked(sub, errLagging)
		}
	}
}

func (e *Events) cutLocked(sub *subscriber, reason error) {
	delete(e.subscribers, sub)
	sub.reason = reason
	close(sub.messages)
}

// Close cuts all subscribers off, and those that come later: a server that ends gracefully waits for their calls.
func (e *Events) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for sub := range e.subscribers {
		e.cutLocked(sub, errEnding)
	}
}

// subscribe returns a subscriber from now on, and a function that ends it.
func (e *Events) subscribe(render func(sandbox.Event) *runtimeapi.ContainerEventResponse) (sub *subscriber, cancel func()) {
	sub = &subscriber{render: render, messages: make(chan *runtimeapi.ContainerEventResponse, eventBacklog)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.subscribers == nil {
		e.subscribers = map[*subscriber]struct{}{}
	}
	e.subscribers[sub] = struct{}{}
	if e.closed {
		e.cutLocked(sub, errEnding)
	}
	return sub, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subscribers, sub)
	}
}

// GetContainerEvents streams events from now on, until the client goes. That the client is
// subscribed it sees by the header, which comes before any event.
func (s *runtimeService) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	sub, cancel := s.Events.subscribe(s.containerEvent)
	defer cancel()
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case message, ok := <-sub.messages:
			if !ok {
				return sub.reason
			}
			if err := stream.Send(message); err != nil {
				return err
			}
		}
	}
}

var eventKinds = map[sandbox.EventKind]runtimeapi.ContainerEventType{
	sandbox.EventCreated: runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT,
	sandbox.EventStarted: runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT,
	sandbox.EventStopped: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
	sandbox.EventDeleted: runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT,
}

// containerEvent adds the statuses of the pod, which spares kubelet to ask. A sandbox that is gone comes with
// its last: kubelet passes over events of pods that it cannot name.
func (s *runtimeService) containerEvent(event sandbox.Event) *runtimeapi.ContainerEventResponse {
	resp := &runtimeapi.ContainerEventResponse{
		ContainerId:        event.ID,
		ContainerEventType: eventKinds[event.Kind],
		CreatedAt:          event.At.UnixNano(),
	}
	rec, err := s.Sandboxes.Get(event.SandboxID)
	if event.Last != nil {
		rec, err = *event.Last, nil
	}
	if err != nil {
		return resp
	}
	resp.PodSandboxStatus = podSandboxStatus(rec)
	resp.ContainersStatuses = s.statusesOf(rec.ID)
	return resp
}

// statusesOf returns the statuses of a sandbox's containers, the newest first: of several attempts kubelet takes the first that it finds.
func (s *runtimeService) statusesOf(sandboxID string) []*runtimeapi.ContainerStatus {
	var out []*runtimeapi.ContainerStatus
	for _, rec := range s.Containers.List() {
		if rec.SandboxID == sandboxID {
			out = append(out, containerStatus(rec))
		}
	}
	slices.Reverse(out)
	return out
}
