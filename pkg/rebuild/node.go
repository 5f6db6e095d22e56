package rebuild

import (
	"cmp"
	"path"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
)

// Pins are what is pinned of a sandbox.
type Pins = ns.Pins

// fromNode puts records together for what containerd has and no copy tells of.
func (p *planner) fromNode() {
	for _, s := range p.in.Stored {
		if _, ok := p.in.Containers[s.ID]; ok {
			continue
		}
		id := sandboxOf(s)
		if id == "" {
			p.note("container %s of containerd does not say to which pod it belongs: it is left alone", s.ID)
			continue
		}
		p.sandboxFor(id, s)
		if s.ID != id { // else it is the pod's own process
			p.addContainer(Container{p.container(id, s), SourceNode})
		}
	}
}

// fromPins puts records together for pods that have namespaces and nothing else: those whose containers were yet to come. Who they
// are is known from their network.
func (p *planner) fromPins() {
	for _, s := range p.in.Pinned {
		if slices.ContainsFunc(p.plan.Sandboxes, func(o Sandbox) bool { return o.ID == s.ID }) {
			continue
		}
		p.addSandbox(Sandbox{p.bare(s), SourceNode})
		if s.Pod.Name == "" {
			p.note("sandbox %s has namespaces, and neither a copy of its record nor a container: whose pod it is cannot be known. "+
				"It is recorded as not ready; remove it with crictl rmp %s when no pod misses it", s.ID, s.ID)
			continue
		}
		p.note("sandbox %s of pod %s/%s has no copy of its record and no container: it is made of its namespaces, and not ready, so that it is made anew",
			s.ID, s.Pod.Namespace, s.Pod.Name)
	}
}

// bare is what its pins tell of a sandbox.
func (p *planner) bare(s Pinned) sandbox.Record {
	rec := sandbox.Record{
		ID:        s.ID,
		Phase:     sandbox.PhaseStopped,
		CreatedAt: s.Made,
		BootID:    p.in.BootID,
		Range:     s.Range,
		NetworkUp: s.Pins.Network != "",
		Pins:      s.Pins,
		Spec: sandbox.Spec{
			Metadata: sandbox.Metadata{
				Name:      cmp.Or(s.Pod.Name, s.ID),
				Namespace: cmp.Or(s.Pod.Namespace, string(idpool.UnknownPod)),
				UID:       cmp.Or(s.Pod.UID, string(idpool.UnknownPod)+"-"+s.ID),
			},
			Namespaces: sandbox.Namespaces{Network: podOrNode(s.Pins.Network), IPC: podOrNode(s.Pins.IPC), PID: podOrNode(s.Pins.PID)},
		},
	}
	rec.Spec.Labels = podLabels(rec.Spec.Metadata)
	if rec.Range != nil {
		rec.Spec.Namespaces.User = &sandbox.UserNamespace{}
	}
	return rec
}

// podLabels are those by which kubelet asks for a pod's sandboxes: without them it would find the name taken when it makes the
// pod anew, and not see by what.
func podLabels(md sandbox.Metadata) map[string]string {
	return map[string]string{container.LabelPodName: md.Name, container.LabelPodNamespace: md.Namespace, container.LabelPodUID: md.UID}
}

func sandboxOf(s container.StoredRecord) string {
	if s.Spec == nil {
		return ""
	}
	return s.Spec.Annotations[ocispec.AnnotationSandboxID]
}

// sandboxFor records the sandbox of a container, or completes what another container told of it.
func (p *planner) sandboxFor(id string, s container.StoredRecord) {
	if at := slices.IndexFunc(p.plan.Sandboxes, func(o Sandbox) bool { return o.ID == id }); at >= 0 {
		have := &p.plan.Sandboxes[at]
		if have.Source == SourceNode {
			have.ProcessUp = have.ProcessUp || s.ID == id
			if s.CreatedAt.Before(have.CreatedAt) {
				have.CreatedAt = s.CreatedAt
			}
		}
		return
	}
	p.addSandbox(Sandbox{p.sandbox(id, s), SourceNode})
	p.note("sandbox %s has no copy of its record: it is made of what kernel and containerd tell, and not ready, so that it is made anew", id)
}

// sandbox is what a container of it, and its pins, tell of a sandbox.
func (p *planner) sandbox(id string, s container.StoredRecord) sandbox.Record {
	pins := p.in.Pins(id)
	rec := sandbox.Record{
		ID:        id,
		Phase:     sandbox.PhaseStopped,
		CreatedAt: s.CreatedAt,
		BootID:    p.in.BootID,
		Range:     mappingOf(s),
		// After a reboot the pin is gone, and what CNI plugins keep of the pod, such as its address, is not.
		NetworkUp: pins.Network != "" || ownNetwork(s),
		ProcessUp: s.ID == id,
		Pins:      pins,
		Spec: sandbox.Spec{
			Metadata: sandbox.Metadata{
				Name:      s.Labels[container.LabelPodName],
				Namespace: s.Labels[container.LabelPodNamespace],
				UID:       cmp.Or(s.Labels[container.LabelPodUID], string(idpool.UnknownPod)+"-"+id),
			},
			Namespaces: sandbox.Namespaces{
				Network: sandbox.ModeNode, IPC: podOrNode(pins.IPC), PID: podOrNode(pins.PID),
			},
		},
	}
	rec.Spec.Labels = podLabels(rec.Spec.Metadata)
	if rec.NetworkUp {
		rec.Spec.Namespaces.Network = sandbox.ModePod
	}
	if rec.Range != nil {
		rec.Spec.Namespaces.User = &sandbox.UserNamespace{}
	}
	if s.Group != id {
		rec.ShimGroup = s.Group
	}
	if s.Spec.Linux != nil {
		rec.Spec.CgroupParent = path.Dir(s.Spec.Linux.CgroupsPath)
	}
	return rec
}

// ownNetwork says whether a container joined a network namespace that is not the host's.
func ownNetwork(s container.StoredRecord) bool {
	return s.Spec.Linux != nil && slices.ContainsFunc(s.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.NetworkNamespace && n.Path != ""
	})
}

func podOrNode(pin string) sandbox.Mode {
	if pin == "" {
		return sandbox.ModeNode
	}
	return sandbox.ModePod
}

// mappingOf is the range in a container's specification, nil for the host's ids.
func mappingOf(s container.StoredRecord) *idpool.Range {
	if s.Spec.Linux == nil || len(s.Spec.Linux.UIDMappings) != 1 {
		return nil
	}
	m := s.Spec.Linux.UIDMappings[0]
	return &idpool.Range{Start: m.HostID, Length: m.Size}
}

// container is what containerd tells of a container. Its output goes nowhere: where its log is nobody knows.
func (p *planner) container(sandboxID string, s container.StoredRecord) container.Record {
	rec := container.Record{
		ID:          s.ID,
		SandboxID:   sandboxID,
		ImageID:     s.Image,
		ImageRef:    s.Image,
		Snapshotter: s.Snapshotter,
		StopSignal:  "SIGTERM",
		CreatedAt:   s.CreatedAt,
		Spec: container.Spec{
			Metadata: container.Metadata{Name: cmp.Or(s.Labels[container.LabelContainerName], s.ID)},
			Image:    s.Image,
			Labels:   s.Labels,
		},
	}
	if s.Group != sandboxID {
		rec.ShimGroup = s.Group
	}
	if task, ok := p.in.Tasks[s.ID]; ok {
		rec.State, rec.PID, rec.StartedAt = container.StateRunning, task.PID, s.CreatedAt
		return rec
	}
	rec.State, rec.ExitCode, rec.Reason = container.StateExited, container.UnknownExitCode, container.ReasonUnknown
	rec.StartedAt, rec.FinishedAt = time.Unix(0, 0), p.in.Now
	return rec
}
