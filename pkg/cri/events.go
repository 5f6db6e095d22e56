package cri

import (
	"errors"
	"sync"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// eventBacklog is how many events a subscriber may lag behind. One that lags further is cut
// off: kubelet then lists again and subscribes anew, so nothing is lost for good.
const eventBacklog = 1000

// errLagging is what a subscriber that was cut off gets.
var errLagging = errors.New("events come faster than they are taken; list again")

// Events hands what happens to every subscriber. The zero value is ready for use.
type Events struct {
	mu          sync.Mutex
	subscribers map[chan sandbox.Event]struct{} // guarded by mu
}

// Publish never blocks.
func (e *Events) Publish(event sandbox.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for ch := range e.subscribers {
		select {
		case ch <- event:
		default:
			delete(e.subscribers, ch)
			close(ch)
		}
	}
}

// subscribe returns a channel that is closed when its reader lags, and a function that ends it.
func (e *Events) subscribe() (events <-chan sandbox.Event, cancel func()) {
	ch := make(chan sandbox.Event, eventBacklog)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.subscribers == nil {
		e.subscribers = map[chan sandbox.Event]struct{}{}
	}
	e.subscribers[ch] = struct{}{}
	return ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subscribers, ch)
	}
}

// GetContainerEvents streams events from now on, until the client goes.
func (s *runtimeService) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	events, cancel := s.Events.subscribe()
	defer cancel()
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case event, ok := <-events:
			if !ok {
				return errLagging
			}
			if err := stream.Send(s.containerEvent(event)); err != nil {
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

// containerEvent adds the statuses of the pod as they are now, which spares kubelet to ask. A
// sandbox that is gone has none.
func (s *runtimeService) containerEvent(event sandbox.Event) *runtimeapi.ContainerEventResponse {
	resp := &runtimeapi.ContainerEventResponse{
		ContainerId:        event.ID,
		ContainerEventType: eventKinds[event.Kind],
		CreatedAt:          event.At.UnixNano(),
	}
	rec, err := s.Sandboxes.Get(event.SandboxID)
	if err != nil {
		return resp
	}
	resp.PodSandboxStatus = podSandboxStatus(rec)
	resp.ContainersStatuses = s.statusesOf(rec.ID)
	return resp
}

// statusesOf returns the statuses of a sandbox's containers, the oldest first.
func (s *runtimeService) statusesOf(sandboxID string) []*runtimeapi.ContainerStatus {
	var out []*runtimeapi.ContainerStatus
	for _, rec := range s.Containers.List() {
		if rec.SandboxID == sandboxID {
			out = append(out, containerStatus(rec))
		}
	}
	return out
}
