package e2ekubelet

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestKubeletThatIsToldOfContainers has kubelet listen to CRI's events. It looks at all containers each five minutes only then, so that what
// it notices sooner it was told: starts, ends and restarts. It goes back to looking each second when it loses the stream too often.
func TestKubeletThatIsToldOfContainers(t *testing.T) {
	n := sharedNode(t)
	opts := n.defaults()
	opts.Config["featureGates"] = map[string]bool{"EventedPLEG": true}
	n.restartKubelet(t, opts)
	t.Cleanup(func() {
		if err := n.kubelet.Restart(context.WithoutCancel(t.Context()), n.defaults()); err != nil {
			t.Error(err)
		}
	})
	const ends = `
restartPolicy: Never
initContainers: [{name: before, image: IMAGE, command: ['true']}]
containers: [{name: main, image: IMAGE, command: [sh, -c, 'sleep 1; exit 3']}]
`
	for _, hostUsers := range []bool{false, true} {
		stays, once := n.run(t, hostUsers, sleeper), n.run(t, hostUsers, ends)
		stays.ready(t)
		kill(t, stays.container(t, "main").PID(t))
		stays.awaitRestart(t, "main")
		if got := ending(t, once.ended(t, corev1.PodFailed), "main").ExitCode; got != 3 {
			t.Errorf("the container ended with %d", got)
		}
	}
	text, err := n.client.get(t.Context(), "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if metrics := string(text); !strings.Contains(metrics, "\nkubelet_evented_pleg_connection_success_count 1\n") || strings.Contains(metrics, "\nkubelet_evented_pleg_connection_error_count ") &&
		!strings.Contains(metrics, "\nkubelet_evented_pleg_connection_error_count 0\n") {
		t.Errorf("kubelet did not have one stream of events all the time")
	}
}
