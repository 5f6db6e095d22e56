package e2ekubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// allKinds are specs of pods that a restart must not disturb.
var allKinds = []string{
	sleeper,
	`
shareProcessNamespace: true
initContainers: [{name: sidecar, image: IMAGE, restartPolicy: Always, command: [sleep, infinity]}]
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'while :; do echo tick; sleep 1; done'], livenessProbe: {exec: {command: ['true']}, periodSeconds: 1}, readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
- {name: second, image: IMAGE, command: [httpd, -f, -p, '8080', -h, /etc], volumeMounts: [{name: memory, mountPath: /memory}]}
volumes: [{name: memory, emptyDir: {medium: Memory}}]
`,
}

// running names the containers of a pod: id, attempt and start of each.
type running map[string]string

// runningContainers waits until the pods are ready.
func runningContainers(t *testing.T, pods []*pod) map[*pod]running {
	t.Helper()
	found := map[*pod]running{}
	for _, p := range pods {
		found[p] = containersOf(p.ready(t))
	}
	return found
}

func containersOf(now *corev1.Pod) running {
	found := running{}
	for _, list := range [][]corev1.ContainerStatus{now.Status.InitContainerStatuses, now.Status.ContainerStatuses} {
		for _, s := range list {
			if s.State.Running != nil {
				found[s.Name] = fmt.Sprintf("%s, restarted %d times, since %s", s.ContainerID, s.RestartCount, s.State.Running.StartedAt)
			}
		}
	}
	return found
}

// wantSame waits until the pods are ready, as the same containers as before.
func wantSame(t *testing.T, pods []*pod, before map[*pod]running) {
	t.Helper()
	for _, p := range pods {
		if now := containersOf(p.ready(t)); !maps.Equal(now, before[p]) {
			t.Errorf("the containers of %s are\n%v\nand were\n%v", p.name, now, before[p])
		}
	}
}

// restarts are what a node's operator does while pods run. The daemon is away for a moment each time.
var restarts = map[string]func(ctx context.Context, n *node) error{
	"kubelet": func(ctx context.Context, n *node) error {
		return errors.Join(n.kubelet.Stop(ctx), n.kubelet.Start(ctx))
	},
	"kubelet killed": func(ctx context.Context, n *node) error {
		return errors.Join(n.kubelet.Kill9(), n.kubelet.Start(ctx))
	},
	"userns-shim": func(ctx context.Context, n *node) error {
		return errors.Join(n.Daemon.Stop(ctx), pause(ctx), n.Daemon.Start(ctx))
	},
	"userns-shim killed": func(ctx context.Context, n *node) error {
		return errors.Join(n.Daemon.Kill9(), pause(ctx), n.Daemon.Start(ctx))
	},
	"containerd": func(ctx context.Context, n *node) error {
		return errors.Join(n.Containerd.Stop(ctx), pause(ctx), n.Containerd.Start(ctx))
	},
	"all three": func(ctx context.Context, n *node) error {
		return errors.Join(n.kubelet.Stop(ctx), n.Daemon.Stop(ctx), n.Containerd.Stop(ctx),
			n.Containerd.Start(ctx), n.Daemon.Start(ctx), n.kubelet.Start(ctx))
	},
}

// pause is long enough for kubelet to look at its pods, which it does each second, and to find that the runtime does not answer.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(3 * time.Second):
		return nil
	}
}

// TestRestartsDoNotDisturbPods restarts each daemon under running pods, and then has kubelet do something with them. The containers are the
// same, none was restarted, and no liveness probe counted what was not the container's fault.
func TestRestartsDoNotDisturbPods(t *testing.T) {
	n := sharedNode(t)
	var pods []*pod
	for _, spec := range allKinds {
		pods = append(pods, n.run(t, false, spec), n.run(t, true, spec))
	}
	before := runningContainers(t, pods)
	for _, name := range slices.Sorted(maps.Keys(restarts)) {
		t.Run(name, func(t *testing.T) {
			if err := restarts[name](t.Context(), n); err != nil {
				t.Fatal(err)
			}
			wantSame(t, pods, before)
			fresh := n.run(t, false, sleeper)
			fresh.wantMap(t, fresh.rangeOf(t))
			for _, p := range pods {
				if got := p.sh(t, "echo works"); got != "works" {
					t.Errorf("exec in %s: %q", p.name, got)
				}
			}
		})
	}
	time.Sleep(2 * time.Second) // of probes and looks at the pods
	wantSame(t, pods, before)
}

// TestContainersThatEndWhileTheirRuntimeIsAway are found ended with their exit codes, and started again.
func TestContainersThatEndWhileTheirRuntimeIsAway(t *testing.T) {
	n := sharedNode(t)
	const spec = `
containers: [{name: main, image: IMAGE, command: [sh, -c, 'trap "exit 7" TERM; [ -e /shared/x ] && sleep infinity; touch /shared/x; while :; do sleep 0.1; done'], volumeMounts: [{name: shared, mountPath: /shared}]}]
volumes: [{name: shared, emptyDir: {}}]
`
	pods := []*pod{n.run(t, false, spec), n.run(t, true, spec)}
	var pids []int
	for _, p := range pods {
		p.ready(t)
		pids = append(pids, p.container(t, "main").PID(t))
	}
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		terminate(t, pid)
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		p.awaitRestart(t, "main")
		if last := status(p.ready(t), "main").LastTerminationState.Terminated; last == nil || last.ExitCode != 7 {
			t.Errorf("the first container ended as %+v", last)
		}
	}
}
