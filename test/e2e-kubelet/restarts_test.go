package e2ekubelet

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestRestartPolicies(t *testing.T) {
	parallelNode(t)
	for policy, ends := range map[corev1.RestartPolicy]map[int]corev1.PodPhase{
		corev1.RestartPolicyNever:     {0: corev1.PodSucceeded, 3: corev1.PodFailed},
		corev1.RestartPolicyOnFailure: {0: corev1.PodSucceeded, 3: corev1.PodRunning},
		corev1.RestartPolicyAlways:    {0: corev1.PodRunning, 3: corev1.PodRunning},
	} {
		for code, phase := range ends {
			t.Run(fmt.Sprintf("%s exit %d", policy, code), func(t *testing.T) {
				eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
					p := n.run(t, hostUsers, fmt.Sprintf(`
restartPolicy: %s
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'exit %d']}
`, policy, code))
					if phase != corev1.PodRunning {
						if s := status(p.ended(t, phase), "main"); s.RestartCount != 0 || int(s.State.Terminated.ExitCode) != code {
							t.Errorf("the container is %+v", s)
						}
						return
					}
					p.await(t, "restarted", func(now *corev1.Pod) error {
						s := status(now, "main")
						if last := s.LastTerminationState.Terminated; s.RestartCount == 0 || last == nil || int(last.ExitCode) != code {
							return errors.New(states(now))
						}
						return nil
					})
				})
			})
		}
	}
}

// TestBackOff holds that a container which keeps failing is started at growing intervals: kubelet computes them from the times that
// the runtime reports.
func TestBackOff(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
containers:
- {name: main, image: IMAGE, command: ['false']}
`)
		p.await(t, "backing off", func(now *corev1.Pod) error {
			if waiting := status(now, "main").State.Waiting; waiting == nil || waiting.Reason != "CrashLoopBackOff" {
				return errors.New(states(now))
			}
			return nil
		})
		var ends []time.Time // of the attempts, in order
		p.await(t, "started three times", func(now *corev1.Pod) error {
			s := status(now, "main")
			if last := s.LastTerminationState.Terminated; last != nil && (len(ends) == 0 || last.FinishedAt.After(ends[len(ends)-1])) {
				ends = append(ends, last.FinishedAt.Time)
			}
			if s.RestartCount < 2 {
				return errors.New(states(now))
			}
			return nil
		})
		if s := status(p.await(t, "known", func(*corev1.Pod) error { return nil }), "main"); s.State.Running != nil && s.State.Running.StartedAt.Sub(ends[0]) < 9*time.Second {
			t.Errorf("the third attempt began at %s, the first of those seen ended at %v", s.State.Running.StartedAt, ends)
		}
	})
}

// awaitRestart waits until a container was restarted once and runs.
func (p *pod) awaitRestart(t testing.TB, name string) {
	t.Helper()
	p.await(t, name+" was restarted", func(now *corev1.Pod) error {
		if s := status(now, name); s.RestartCount != 1 || s.State.Running == nil {
			return errors.New(states(now))
		}
		return nil
	})
}
