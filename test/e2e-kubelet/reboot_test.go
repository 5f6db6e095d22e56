package e2ekubelet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestPowerFailure takes everything from the node that is not on its disk. kubelet starts the pods again: in new sandboxes, with
// the ranges that they had, and with the volumes on disk.
func TestPowerFailure(t *testing.T) {
	n := sharedNode(t)
	const spec = `
initContainers: [{name: sidecar, image: IMAGE, restartPolicy: Always, command: [sleep, infinity]}]
containers:
- {name: main, image: IMAGE, command: [sleep, infinity], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}, volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]}
- {name: second, image: IMAGE, command: [httpd, -f, -p, '8080', -h, /etc]}
volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]
`
	pods := []*pod{n.run(t, false, spec), n.run(t, true, spec), n.run(t, false, spec)}
	had, sandboxes := map[*pod]idMapping{}, map[*pod]string{}
	before := runningContainers(t, pods)
	for i, p := range pods {
		p.sh(t, "echo kept > /disk/x; chown 1000:1000 /disk/x; echo lost > /memory/x")
		sandboxes[p] = p.sandbox(t).ID
		if i != 1 {
			had[p] = p.wantRange(t)
		}
	}
	if err := n.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, p := range pods {
		p.awaitOther(t, sandboxes[p], "")
		now := p.ready(t)
		for name, was := range before[p] {
			if containersOf(now)[name] == was {
				t.Errorf("%s of %s is %s, as before", name, p.name, was)
			}
		}
		wantPowerless(t, now)
		if got := p.sh(t, "cat /disk/x; stat -c %u:%g /disk/x; ls /memory"); got != "kept\n1000:1000" {
			t.Errorf("the volumes of %s have %q", p.name, got)
		}
		if i == 1 {
			continue
		}
		if got := p.wantRange(t); got != had[p] {
			t.Errorf("%s has %+v, and had %+v", p.name, got, had[p])
		}
	}
}

// wantPowerless holds that nobody claims to know how containers ended which no process was left to see.
func wantPowerless(t *testing.T, now *corev1.Pod) {
	t.Helper()
	for _, name := range []string{"main", "second"} {
		s := status(now, name)
		if last := s.LastTerminationState.Terminated; s.RestartCount != 1 || last == nil || last.ExitCode != 255 || last.Reason != "Unknown" {
			t.Errorf("%s was restarted %d times, and ended as %+v before", name, s.RestartCount, last)
		}
	}
}
