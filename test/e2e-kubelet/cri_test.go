package e2ekubelet

import (
	"context"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// readySandboxes are the pod's sandboxes that are ready, of which there is at most one.
func (p *pod) readySandboxes(t testing.TB) (ready []*runtimeapi.PodSandbox) {
	t.Helper()
	for _, sandbox := range p.allSandboxes(t) {
		if sandbox.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			ready = append(ready, sandbox)
		}
	}
	return ready
}

// allSandboxes are the pod's, those that have ended included.
func (p *pod) allSandboxes(t testing.TB) []*runtimeapi.PodSandbox {
	t.Helper()
	resp, err := p.node.Runtime.ListPodSandbox(context.WithoutCancel(t.Context()), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.name": p.name},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Items
}

// sandbox is the pod's sandbox that is ready.
func (p *pod) sandbox(t testing.TB) *nodetest.Pod {
	t.Helper()
	ready := p.readySandboxes(t)
	if len(ready) != 1 {
		t.Fatalf("%s has %d sandboxes that are ready, want 1", p.name, len(ready))
	}
	return p.node.PodOf(ready[0].Id, nil)
}

// containers lists the pod's containers at the side of CRI, in any state.
func (p *pod) containers(t testing.TB) []*runtimeapi.Container {
	t.Helper()
	resp, err := p.node.Runtime.ListContainers(context.WithoutCancel(t.Context()), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.name": p.name},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Containers
}

// alive tells whether a container of the pod runs.
func (p *pod) alive(t testing.TB, id string) bool {
	t.Helper()
	for _, c := range p.containers(t) {
		if c.Id == id {
			return c.State == runtimeapi.ContainerState_CONTAINER_RUNNING
		}
	}
	return false
}
