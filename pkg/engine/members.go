package engine

import (
	"context"
	"fmt"
	"sync"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// groupLabel on a container record names the group of its task, so that groups are found again after
// a restart without reading every spec.
const groupLabel = "userns-shim.io/shim-group"

// groupAnnotations are what the runc shim takes a container's group from, in its order.
var groupAnnotations = []string{groupAnnotation, "io.kubernetes.cri.sandbox-id"}

// groupOf returns the group that the shim will put the container in; without an annotation it is
// alone in a group of its own name.
func groupOf(id string, spec *specs.Spec) string {
	for _, key := range groupAnnotations {
		if group, ok := spec.Annotations[key]; ok {
			return group
		}
	}
	return id
}

// members are the containers of each group, as the records named them when the connection to
// containerd was made. Groups that are younger need no lookup: what their tasks are is known.
type members struct {
	turn *keyedLock

	mu     sync.Mutex
	known  uint64              // guarded by mu
	groups map[string][]string // guarded by mu
}

func newMembers() *members {
	return &members{turn: newKeyedLock()}
}

func (m *members) get(known uint64) (map[string][]string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.groups, m.known == known && m.groups != nil
}

func (m *members) set(known uint64, groups map[string][]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known, m.groups = known, groups
}

// recordedMembers returns the containers of every group, from memory where that is as new as known.
func (e *Engine) recordedMembers(ctx context.Context, known uint64) (map[string][]string, error) {
	if groups, ok := e.members.get(known); ok {
		return groups, nil
	}
	if err := e.members.turn.Lock(ctx, ""); err != nil {
		return nil, err
	}
	defer e.members.turn.Unlock("")
	if groups, ok := e.members.get(known); ok {
		return groups, nil
	}
	recs, err := e.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q", groupLabel))
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	groups := make(map[string][]string)
	for _, rec := range recs {
		groups[rec.Labels[groupLabel]] = append(groups[rec.Labels[groupLabel]], rec.ID)
	}
	e.members.set(known, groups)
	return groups, nil
}

// refresh reads the tasks of a stale turn's group.
func (e *Engine) refresh(ctx context.Context, t *turn) error {
	groups, err := e.recordedMembers(ctx, t.known)
	if err != nil {
		return fmt.Errorf("find tasks of group %s: %w", t.name, err)
	}
	var present []string
	for _, id := range append(t.candidates(), groups[t.name]...) {
		_, err := e.client.TaskService().Get(ctx, &tasksapi.GetRequest{ContainerID: id})
		if err = errgrpc.ToNative(err); err == nil {
			present = append(present, id)
		} else if !errdefs.IsNotFound(err) {
			return fmt.Errorf("find task %s of group %s: %w", id, t.name, err)
		}
	}
	t.learn(present)
	return nil
}
