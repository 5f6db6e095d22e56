package e2ekubelet

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// probeKinds are the handlers of probes that succeed as long as the container serves and /tmp/w/ok is there. The first answer that says otherwise
// counts, and comes at once; by default one that takes a second does, too, as any may on a machine that has much to do.
var probeKinds = map[string]string{
	"exec": `{exec: {command: [cat, /tmp/w/ok]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}`,
	"http": `{httpGet: {path: /ok, port: 8080}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}`,
	"tcp":  `{tcpSocket: {port: 8080}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}`,
}

// server serves /tmp/w until /tmp/w/ok goes, as user 1000.
const server = `'mkdir -p /tmp/w; touch /tmp/w/ok; httpd -f -p 8080 -h /tmp/w & while [ -e /tmp/w/ok ]; do sleep 0.2; done; kill $!; while [ ! -e /tmp/w/ok ]; do sleep 0.2; done; exec httpd -f -p 8080 -h /tmp/w'`

// TestReadinessProbes watches readiness come, go and come again, without a restart.
func TestReadinessProbes(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		for kind, handler := range probeKinds {
			t.Run(kind, func(t *testing.T) {
				t.Parallel()
				p := n.run(t, hostUsers, fmt.Sprintf(`
containers:
- {name: main, image: IMAGE, command: [sh, -c, %s], securityContext: {runAsUser: 1000}, readinessProbe: %s}
`, server, handler))
				p.ready(t)
				p.sh(t, "rm /tmp/w/ok")
				p.await(t, "not ready", func(now *corev1.Pod) error {
					if status(now, "main").Ready || isReady(now) == nil {
						return fmt.Errorf("it is ready still")
					}
					return nil
				})
				p.sh(t, "touch /tmp/w/ok")
				if s := status(p.ready(t), "main"); s.RestartCount != 0 {
					t.Errorf("the container was restarted: %+v", s)
				}
			})
		}
	})
}

// TestLivenessProbes has each kind of probe restart a container.
func TestLivenessProbes(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		for kind, handler := range probeKinds {
			t.Run(kind, func(t *testing.T) {
				t.Parallel()
				p := n.run(t, hostUsers, fmt.Sprintf(`
containers:
- {name: main, image: IMAGE, command: [sh, -c, %s], livenessProbe: %s, startupProbe: %s}
`, server, handler, strings.Replace(handler, "failureThreshold: 1", "failureThreshold: 60", 1)))
				p.ready(t)
				p.sh(t, "rm /tmp/w/ok")
				p.await(t, "restarted", func(now *corev1.Pod) error {
					s := status(now, "main")
					if s.RestartCount != 1 || !s.Ready {
						return fmt.Errorf("%d restarts, ready %t", s.RestartCount, s.Ready)
					}
					if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != 137 || last.Reason != "Error" {
						return fmt.Errorf("the last one ended as %+v", last)
					}
					return nil
				})
			})
		}
	})
}

// TestExecProbeThatHangs has a probe go on for longer than it may: it has failed then, and its processes are ended rather than gathered.
func TestExecProbeThatHangs(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
containers:
- name: main
  image: IMAGE
  command: [sleep, infinity]
  readinessProbe: {exec: {command: [sh, -c, '[ ! -e /tmp/hang ] || { echo >> /tmp/hang; sleep 24680; }']}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 1}
`)
		p.ready(t)
		p.sh(t, "touch /tmp/hang")
		p.await(t, "not ready", func(now *corev1.Pod) error {
			if isReady(now) == nil {
				return errors.New("it is ready still")
			}
			return nil
		})
		eventually(t, "four probes were tried", func() error {
			if tries := number(t, p.sh(t, "wc -l < /tmp/hang")); tries < 4 {
				return fmt.Errorf("%g were", tries)
			}
			return nil
		})
		eventually(t, "only the processes of one probe are there", func() error { // those of the last one may be ending
			if hanging := number(t, p.sh(t, "ps | grep -c '[s]leep 24680' || true")); hanging > 2 { // the one of now, and its shell
				return fmt.Errorf("%g are", hanging)
			}
			return nil
		})
		p.sh(t, "rm /tmp/hang")
		if s := status(p.ready(t), "main"); s.RestartCount != 0 {
			t.Errorf("the container was restarted: %+v", s)
		}
	})
}
