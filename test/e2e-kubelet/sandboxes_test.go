package e2ekubelet

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// sandboxEnds are ways in which a sandbox ends that kubelet knows nothing of.
var sandboxEnds = map[string]func(t *testing.T, n *node, sandbox *nodetest.Pod) error{
	"stopped": func(t *testing.T, n *node, sandbox *nodetest.Pod) error {
		_, err := n.Runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox.ID})
		return err
	},
	"removed": func(t *testing.T, n *node, sandbox *nodetest.Pod) error {
		_, err := n.Runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox.ID})
		if err != nil {
			return err
		}
		_, err = n.Runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox.ID})
		return err
	},
	"init killed": func(t *testing.T, n *node, sandbox *nodetest.Pod) error {
		pid := n.PodInfo(t, sandbox.ID).PID
		if *pid == 0 {
			return errors.New("the pod has no process of its own")
		}
		kill(t, *pid)
		return nil
	},
}

// TestSandboxThatEndedIsReplaced ends a running pod's sandbox behind kubelet's back: kubelet makes another one, which has
// the pod's range and volumes.
func TestSandboxThatEndedIsReplaced(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		for name, end := range sandboxEnds {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := n.run(t, hostUsers, `
shareProcessNamespace: true
containers: [{name: main, image: IMAGE, command: [sleep, infinity], volumeMounts: [{name: shared, mountPath: /shared}]}]
volumes: [{name: shared, emptyDir: {}}]
`)
				before := p.ready(t)
				var had idMapping
				if !hostUsers {
					had = p.wantRange(t)
				}
				p.sh(t, "echo kept > /shared/x && chown 1000:1000 /shared/x")
				sandbox := p.sandbox(t)
				if err := end(t, n, sandbox); err != nil {
					t.Fatal(err)
				}
				p.awaitOther(t, sandbox.ID, status(before, "main").ContainerID)
				if got := p.sh(t, "cat /shared/x; stat -c %u:%g /shared/x"); got != "kept\n1000:1000" {
					t.Errorf("of the volume the pod reads %q", got)
				}
				if hostUsers {
					return
				}
				// A pod without a sandbox holds nothing any more: only what kubelet wrote down is its own still.
				keeps := name != "removed" || had == p.rangeOf(t)
				if got := p.wantRange(t); keeps && got != had {
					t.Errorf("the pod has %+v, and had %+v", got, had)
				}
			})
		}
	})
}

// awaitOther waits until the pod is ready with another sandbox and container than those, neither of which is.
func (p *pod) awaitOther(t *testing.T, sandbox, container string) {
	t.Helper()
	p.await(t, "has another sandbox", func(now *corev1.Pod) error {
		ready := p.readySandboxes(t)
		if len(ready) != 1 || ready[0].Id == sandbox {
			return fmt.Errorf("the sandboxes that are ready are %v", ready)
		}
		if status(now, "main").ContainerID == container {
			return fmt.Errorf("its container is %s still", container)
		}
		return isReady(now)
	})
}
