package e2ekubelet

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestInitContainersRunInOrder(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
initContainers:
- {name: one, image: IMAGE, command: [sh, -c, 'echo one >> /shared/order; id -u >> /shared/order'], volumeMounts: [{name: shared, mountPath: /shared}]}
- {name: two, image: IMAGE, command: [sh, -c, 'echo two >> /shared/order'], volumeMounts: [{name: shared, mountPath: /shared}]}
containers:
- {name: main, image: IMAGE, command: [sleep, infinity], volumeMounts: [{name: shared, mountPath: /shared}]}
volumes: [{name: shared, emptyDir: {}}]
`)
		now := p.ready(t)
		if got := p.sh(t, "cat /shared/order"); got != "one\n0\ntwo" {
			t.Errorf("init containers wrote %q", got)
		}
		for _, name := range []string{"one", "two"} {
			ended := status(now, name).State.Terminated
			if ended == nil || ended.ExitCode != 0 || ended.Reason != "Completed" {
				t.Errorf("init container %s is %+v", name, ended)
			}
		}
	})
}

// TestFailedInitContainerIsTriedAgain lets the first attempt fail: the others wait, and nothing runs twice.
func TestFailedInitContainerIsTriedAgain(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
initContainers:
- {name: first, image: IMAGE, command: [sh, -c, '[ -e /shared/tried ] || { touch /shared/tried; exit 7; }'], volumeMounts: [{name: shared, mountPath: /shared}]}
containers:
- {name: main, image: IMAGE, command: [sleep, infinity]}
volumes: [{name: shared, emptyDir: {}}]
`)
		now := p.ready(t)
		if s := status(now, "first"); s.RestartCount != 1 || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 7 {
			t.Errorf("the init container's status is %+v", s)
		}
		if s := status(now, "main"); s.RestartCount != 0 {
			t.Errorf("main was restarted: %+v", s)
		}
	})
}

// TestSidecars starts a restartable init container before the others, restarts it when it ends, and ends it after them.
func TestSidecars(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
restartPolicy: Never
initContainers:
- name: sidecar
  image: IMAGE
  restartPolicy: Always
  command: [sh, -c, 'trap "echo sidecar ends >> /shared/log; exit 0" TERM; echo sidecar >> /shared/log; [ -e /shared/again ] || { touch /shared/again; sleep 1; exit 3; }; while :; do sleep 0.1; done']
  volumeMounts: [{name: shared, mountPath: /shared}]
- {name: after, image: IMAGE, command: [sh, -c, 'echo after >> /shared/log'], volumeMounts: [{name: shared, mountPath: /shared}]}
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'until [ $(grep -c ^sidecar$ /shared/log) = 2 ]; do sleep 0.1; done; echo main ends >> /shared/log'], volumeMounts: [{name: shared, mountPath: /shared}]}
volumes: [{name: shared, hostPath: {path: `+n.hostDir(t)+`, type: Directory}}]
terminationGracePeriodSeconds: 20
`)
		now := p.ended(t, corev1.PodSucceeded)
		if s := status(now, "sidecar"); s.RestartCount != 1 || s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 {
			t.Errorf("the sidecar's status is %+v", s)
		}
		got := strings.Fields(strings.ReplaceAll(p.readHostDir(t, "log"), " ends", "-ends"))
		// The sidecar starts before, or again after, the init container that waits only for its start.
		if len(got) != 5 || got[0] != "sidecar" || got[3] != "main-ends" || got[4] != "sidecar-ends" {
			t.Errorf("the containers wrote %q", got)
		}
	})
}

// TestContainersOfAPodShareIt has containers that see each other's files, loopback and System V IPC, and not each other's processes.
func TestContainersOfAPodShareIt(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
hostname: together
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'mkdir /tmp/w; echo hello > /tmp/w/x; echo mark > /shared/mark; exec httpd -f -p 127.0.0.1:8080 -h /tmp/w'], volumeMounts: [{name: shared, mountPath: /shared}]}
- {name: second, image: IMAGE, command: [sleep, infinity], volumeMounts: [{name: shared, mountPath: /shared}]}
- {name: third, image: IMAGE, command: [sleep, infinity], securityContext: {runAsUser: 1000}, volumeMounts: [{name: shared, mountPath: /shared, readOnly: true}]}
volumes: [{name: shared, emptyDir: {}}]
`)
		p.ready(t)
		for _, name := range []string{"second", "third"} {
			eventually(t, "first container serves", func() error {
				resp, err := p.container(t, name).TryExec(t.Context(), "wget", "-qO-", "http://127.0.0.1:8080/x")
				if err != nil || string(resp.Stdout) != "hello\n" {
					return fmt.Errorf("wget in %s: %q, %w", name, resp.GetStdout(), err)
				}
				return nil
			})
			if got := p.exec(t, name, "cat", "/shared/mark"); got != "mark" {
				t.Errorf("%s reads %q in the shared volume", name, got)
			}
			if got := p.exec(t, name, "hostname"); got != "together" {
				t.Errorf("the hostname of %s is %q", name, got)
			}
			if got := p.exec(t, name, "sh", "-c", "cat /proc/[0-9]*/comm | grep -c '^httpd' || true"); got != "0" {
				t.Errorf("%s sees %s processes of the first container", name, got)
			}
		}
		one := p.exec(t, "main", "readlink", "/proc/self/ns/ipc")
		if other := p.exec(t, "second", "readlink", "/proc/self/ns/ipc"); one != other {
			t.Errorf("the IPC namespaces are %s and %s", one, other)
		}
	})
}
