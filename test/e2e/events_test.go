package e2e

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// listener keeps what a subscriber was sent.
type listener struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	events []*runtimeapi.ContainerEventResponse
	err    error
}

// listen subscribes, and returns once the server has taken the subscription.
func listen(t *testing.T, n *nodetest.Node) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := n.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err == nil {
		_, err = stream.Header()
	}
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{cancel: cancel, done: make(chan struct{})}
	go l.read(stream)
	t.Cleanup(l.end)
	return l
}

func (l *listener) read(stream grpc.ServerStreamingClient[runtimeapi.ContainerEventResponse]) {
	defer close(l.done)
	for {
		event, err := stream.Recv()
		l.mu.Lock()
		if l.err = err; err == nil {
			l.events = append(l.events, event)
		}
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (l *listener) end() {
	l.cancel()
	<-l.done
}

// of returns the events of a pod so far, in words.
func (l *listener) of(pod *nodetest.Pod, names map[string]string) (words []string, events []*runtimeapi.ContainerEventResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.PodSandboxStatus.GetMetadata().GetUid() != pod.Request.Config.Metadata.Uid {
			continue
		}
		kind := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(e.ContainerEventType.String(), "CONTAINER_"), "_EVENT"))
		words = append(words, names[e.ContainerId]+" "+kind)
		events = append(events, e)
	}
	return words, events
}

// TestContainerEvents follows a pod's life as two subscribers see it.
func TestContainerEvents(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		first, second := listen(t, n), listen(t, n)
		pod := n.RunPod(t, opts...)
		c := pod.Run(t, image, nodetest.Shell("exit 5"))
		c.Wait(t)
		c.Remove(t)
		pod.Stop(t)
		pod.Remove(t)
		want := []string{
			"pod created", "pod started", "container created", "container started", "container stopped", "container deleted",
			"pod stopped", "pod deleted",
		}
		names := map[string]string{pod.ID: "pod", c.ID: "container"}
		for i, l := range []*listener{first, second} {
			words, events := awaitEvents(t, l, pod, names, len(want))
			if !slices.Equal(words, want) {
				t.Fatalf("subscriber %d got %q, want %q", i, words, want)
			}
			checkEvents(t, pod, c, events)
		}
	})
}

func awaitEvents(t *testing.T, l *listener, pod *nodetest.Pod, names map[string]string, count int) ([]string, []*runtimeapi.ContainerEventResponse) {
	t.Helper()
	for range 500 {
		if words, events := l.of(pod, names); len(words) >= count {
			return words, events
		}
		time.Sleep(10 * time.Millisecond)
	}
	words, events := l.of(pod, names)
	t.Errorf("events are %q, want %d", words, count)
	return words, events
}

// checkEvents holds that each event has the statuses of its moment, and times in their order. A pod that is gone comes
// with its last, which kubelet needs to name it.
func checkEvents(t *testing.T, pod *nodetest.Pod, c *nodetest.Container, events []*runtimeapi.ContainerEventResponse) {
	t.Helper()
	states := []string{"", "", "CONTAINER_CREATED", "CONTAINER_RUNNING", "CONTAINER_EXITED", "", "", ""}
	for i, e := range events {
		if i > 0 && e.CreatedAt < events[i-1].CreatedAt {
			t.Errorf("event %d was before event %d", i, i-1)
		}
		if e.PodSandboxStatus.GetId() != pod.ID || e.PodSandboxStatus.GetCreatedAt() == 0 {
			t.Errorf("event %d has the pod %v", i, e.PodSandboxStatus)
		}
		var got string
		for _, s := range e.ContainersStatuses {
			got += s.State.String()
		}
		// A process that ends at once has ended by the time of a later look, never the other way round.
		if got != states[i] && (states[i] != "CONTAINER_RUNNING" || got != "CONTAINER_EXITED") {
			t.Errorf("event %d (%s) has containers that are %q, want %q", i, e.ContainerEventType, got, states[i])
		}
	}
	ready := func(i int) bool {
		return events[i].PodSandboxStatus.State == runtimeapi.PodSandboxState_SANDBOX_READY
	}
	if !ready(0) || !ready(4) || ready(6) || ready(7) {
		t.Errorf("the pod is ready in events 0: %t, 4: %t, 6: %t, 7: %t", ready(0), ready(4), ready(6), ready(7))
	}
	if stopped := events[4].ContainersStatuses; len(stopped) == 1 {
		if s := stopped[0]; s.Id != c.ID || s.ExitCode != 5 || s.Reason != "Error" || s.FinishedAt == 0 || s.LogPath == "" {
			t.Errorf("the status of the stopped container is %v", s)
		}
	}
}

// TestStatusesOfAPodsContainersAreNewestFirst: a kubelet that listens to events takes the first of several attempts for the container.
func TestStatusesOfAPodsContainersAreNewestFirst(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t, nodetest.HostUsers)
	var want []string
	for range 3 {
		want = append([]string{pod.Create(t, n.Image(t, labimage.Demo)).ID}, want...)
	}
	resp, err := n.Runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.ID})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range resp.ContainersStatuses {
		got = append(got, s.Id)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the containers are %q, want %q", got, want)
	}
}

// TestSubscriberThatDoesNotReadIsCutOff: the others get all, and a client that goes away holds nobody up.
func TestSubscriberThatDoesNotReadIsCutOff(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	// A window that is never read fills, and then the backlog of 1000 events. The window of a connection on which
	// other calls were made can have grown to megabytes.
	conn, err := n.Daemon.Dial(grpc.WithStaticStreamWindowSize(64 << 10))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	idle, err := runtimeapi.NewRuntimeServiceClient(conn).GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err == nil {
		_, err = idle.Header()
	}
	if err != nil {
		t.Fatal(err)
	}
	reader, gone := listen(t, n), listen(t, n)
	gone.end()
	if got := status.Code(gone.err); got != codes.Canceled {
		t.Errorf("a client that went away got %s", got)
	}
	pod := n.RunPod(t)
	const containers = 600
	var group errgroup.Group
	group.SetLimit(4)
	for range containers {
		group.Go(func() error { return comeAndGo(t.Context(), n, pod, image) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	_, events := awaitEvents(t, reader, pod, nil, 2+2*containers)
	if len(events) != 2+2*containers {
		t.Errorf("the subscriber that reads got %d events of %d", len(events), 2+2*containers)
	}
	defer time.AfterFunc(20*time.Second, cancel).Stop() // one that was not cut off would wait for more
	got := 0
	for ; err == nil; got++ {
		_, err = idle.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted || got >= 2+2*containers {
		t.Errorf("the subscriber that did not read got %d events and then %v, want ResourceExhausted", got, err)
	}
}

// comeAndGo makes two events of a few kilobytes.
func comeAndGo(ctx context.Context, n *nodetest.Node, pod *nodetest.Pod, image string) error {
	c, err := pod.TryCreate(ctx, pod.ContainerConfig(image, func(c *runtimeapi.ContainerConfig) {
		c.Annotations = map[string]string{"filler": strings.Repeat("x", 2000)}
	}))
	if err == nil {
		_, err = n.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID})
	}
	return err
}

// TestSubscribersDoNotHoldUpTheEnd: a daemon that is told to end waits for calls that are under way, but events would
// never end by themselves.
func TestSubscribersDoNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	l := listen(t, n)
	began := time.Now()
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the end took %s", took)
	}
	<-l.done
	if got := status.Code(l.err); got != codes.Unavailable {
		t.Errorf("the subscriber got %v, want Unavailable", l.err)
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := listen(t, n)
	pod := n.RunPod(t)
	awaitEvents(t, after, pod, nil, 2)
}
