package e2ekubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
- {name: main, image: IMAGE, command: [sh, -c, 'i=0; while :; do i=$((i+1)); echo $i; sleep 1; done'], livenessProbe: {exec: {command: ['true']}, periodSeconds: 1}, readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
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
	"containerd killed": func(ctx context.Context, n *node) error {
		return errors.Join(n.Containerd.Kill9(), pause(ctx), n.Containerd.Start(ctx))
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
// same, none was restarted, no liveness probe counted what was not the container's fault, and of their logs nothing is missing.
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
			fresh.wantRange(t)
			for _, p := range pods {
				if got := p.sh(t, "echo works"); got != "works" {
					t.Errorf("exec in %s: %q", p.name, got)
				}
			}
		})
	}
	for _, p := range pods[len(pods)-2:] {
		p.wantWholeLog(t)
	}
	wantSame(t, pods, before)
}

// wantWholeLog waits for two more lines, so that probes and looks at the pod come between, and holds that of a container which counts in its log
// no number is missing.
func (p *pod) wantWholeLog(t *testing.T) {
	t.Helper()
	seen := strings.Count(p.logs(t, "main", nil), "\n")
	var lines []string
	eventually(t, p.name+" goes on counting", func() error {
		if lines = strings.Fields(p.logs(t, "main", nil)); len(lines) < seen+2 {
			return fmt.Errorf("it is at %d, and was at %d", len(lines), seen)
		}
		return nil
	})
	for i, line := range lines {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("line %d of the log of %s is %q", i+1, p.name, line)
		}
	}
}

// TestContainersThatEndWhileTheirRuntimeIsAway are found ended as they did, and started again: one with an exit code, one killed, and one
// for want of memory, of which no event tells.
func TestContainersThatEndWhileTheirRuntimeIsAway(t *testing.T) {
	n := sharedNode(t)
	dir := n.hostDir(t)
	spec := strings.ReplaceAll(`
containers:
- {name: exits, image: IMAGE, command: [sh, -c, '[ -e /shared/x ] && sleep infinity; touch /shared/x; AWAIT; exit 7'], volumeMounts: &mounts [{name: shared, mountPath: /shared}, {name: host, mountPath: /host}]}
- {name: killed, image: IMAGE, command: [sleep, infinity]}
- {name: hungry, image: IMAGE, command: [sh, -c, '[ -e /shared/y ] && sleep infinity; touch /shared/y; AWAIT; exec dd if=/dev/zero of=/dev/null bs=100M count=1'], resources: {limits: {memory: 32Mi}}, volumeMounts: *mounts}
volumes: [{name: shared, emptyDir: {}}, {name: host, hostPath: {path: `+dir+`, type: Directory}}]
`, "AWAIT", "until [ -e /host/go ]; do sleep 0.1; done")
	ends := map[string]corev1.ContainerStateTerminated{
		"exits": {ExitCode: 7, Reason: "Error"}, "killed": {ExitCode: 137, Reason: "Error"}, "hungry": {ExitCode: 137, Reason: "OOMKilled"},
	}
	pods := []*pod{n.run(t, false, spec), n.run(t, true, spec)}
	pids := map[*pod]map[string]int{}
	for _, p := range pods {
		p.ready(t)
		pids[p] = map[string]int{}
		for name := range ends {
			pids[p][name] = p.container(t, name).PID(t)
		}
	}
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		kill(t, pids[p]["killed"])
		for _, name := range []string{"exits", "hungry"} {
			awaitNoProcess(t, pids[p][name])
		}
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		for name, want := range ends {
			p.awaitRestart(t, name)
			last := status(p.ready(t), name).LastTerminationState.Terminated
			if last == nil || last.ExitCode != want.ExitCode || last.Reason != want.Reason {
				t.Errorf("the first container %s ended as %+v, want %d, %s", name, last, want.ExitCode, want.Reason)
			}
		}
	}
}
