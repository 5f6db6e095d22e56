package e2ekubelet

import (
	"errors"
	"fmt"
	"path/filepath"
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

// TestBackOff holds that a container which keeps failing is started at growing intervals, which kubelet computes from the times that the
// runtime reports; and that kubelet clears the earlier attempts away.
func TestBackOff(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
containers:
- {name: main, image: IMAGE, command: ['false']}
`)
		var ended []corev1.ContainerStateTerminated // the attempts, in order; the first can be missed
		told := false                               // why it waits
		p.await(t, "was restarted three times", func(now *corev1.Pod) error {
			s := status(now, "main")
			for _, last := range []*corev1.ContainerStateTerminated{s.LastTerminationState.Terminated, s.State.Terminated} {
				if last != nil && (len(ended) == 0 || ended[len(ended)-1].ContainerID != last.ContainerID) {
					ended = append(ended, *last)
				}
			}
			told = told || s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff"
			if s.RestartCount < 3 || s.State.Running != nil {
				return errors.New(states(now))
			}
			return nil
		})
		if len(ended) < 3 || !told {
			t.Fatalf("of three restarts the ends seen are %v; CrashLoopBackOff was told: %t", ended, told)
		}
		ended = ended[len(ended)-3:]
		// The first restart is at once, and the next after 10 and 20 s. Times are in seconds.
		for i, want := range []time.Duration{9 * time.Second, 19 * time.Second} {
			if waited := ended[i+1].StartedAt.Sub(ended[i].FinishedAt.Time); waited < want {
				t.Errorf("restart %d is %s after the end before it, want %s at least: %v", i+2, waited, want, ended)
			}
		}
		eventually(t, "earlier attempts are cleared away", func() error {
			logs, err := filepath.Glob(filepath.Join(n.kubelet.Logs, namespace+"_"+p.name+"_*", "main", "*.log"))
			if all := p.containers(t); err != nil || len(all) > 2 || len(logs) > 2 {
				return fmt.Errorf("%d containers and the logs %v are there, %w", len(all), logs, err)
			}
			return nil
		})
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
