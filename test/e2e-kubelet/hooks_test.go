package e2ekubelet

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestLifecycleHooks(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		dir := n.hostDir(t)
		p := n.run(t, hostUsers, strings.ReplaceAll(`
containers:
- name: main
  image: IMAGE
  command: [sh, -c, 'mkdir /tmp/w; echo served > /tmp/w/x; httpd -p 8080 -h /tmp/w; trap "echo term >> /host/log; exit 0" TERM; touch /tmp/up; while :; do sleep 0.1; done']
  lifecycle:
    postStart: {exec: {command: [sh, -c, 'id -u > /host/poststart; until [ -e /tmp/up ]; do sleep 0.1; done']}}
    preStop: {exec: {command: [sh, -c, 'echo prestop >> /host/log; sleep 1; echo prestop ends >> /host/log']}}
  volumeMounts: [{name: host, mountPath: /host}]
- name: http
  image: IMAGE
  command: [sleep, infinity]
  lifecycle: {postStart: {httpGet: {path: /x, port: 8080}}}
volumes: [{name: host, hostPath: {path: DIR, type: Directory}}]
terminationGracePeriodSeconds: 20
`, "DIR", dir))
		p.ready(t)
		if got, err := os.ReadFile(dir + "/poststart"); err != nil || string(got) != "0\n" {
			t.Errorf("postStart wrote %q, %v", got, err)
		}
		p.remove(t)
		if got, err := os.ReadFile(dir + "/log"); err != nil || string(got) != "prestop\nprestop ends\nterm\n" {
			t.Errorf("at the end the pod wrote %q, %v", got, err)
		}
	})
}

func TestFailedPostStartHookEndsTheContainer(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
containers:
- name: main
  image: IMAGE
  command: [sh, -c, 'sleep infinity']
  lifecycle: {postStart: {exec: {command: [sh, -c, 'echo no; exit 9']}}}
`)
		p.await(t, "restarted", func(now *corev1.Pod) error {
			s := status(now, "main")
			for _, ended := range []*corev1.ContainerStateTerminated{s.State.Terminated, s.LastTerminationState.Terminated} {
				if ended != nil && ended.ExitCode == 137 {
					return nil
				}
			}
			return errors.New(states(now))
		})
	})
}

// TestGracefulDeletion measures how long a pod may go on after it was deleted.
func TestGracefulDeletion(t *testing.T) {
	parallelNode(t)
	const grace = 4
	for name, deletion := range map[string]struct {
		onTerm   string
		min, max time.Duration
		log      string
	}{
		"ends in time":    {"sleep 2; echo graceful; exit 0", 2 * time.Second, 20 * time.Second, "term\ngraceful\n"},
		"does not end":    {"while :; do sleep 0.1; done", grace * time.Second, 30 * time.Second, "term\n"},
		"ignores SIGTERM": {"", grace * time.Second, 30 * time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
				dir := n.hostDir(t)
				trap := "trap '' TERM"
				if deletion.onTerm != "" {
					trap = "trap 'echo term; " + deletion.onTerm + "' TERM"
				}
				p := n.run(t, hostUsers, fmt.Sprintf(`
containers:
- name: main
  image: IMAGE
  command: [sh, -c, %q]
  volumeMounts: [{name: host, mountPath: /host}]
volumes: [{name: host, hostPath: {path: %s, type: Directory}}]
terminationGracePeriodSeconds: %d
`, "exec > /host/log; "+trap+"; touch /host/up; while :; do sleep 0.1; done", dir, grace))
				p.ready(t)
				eventually(t, "trap is set", func() error { _, err := os.Stat(dir + "/up"); return err })
				c := p.container(t, "main")
				began := time.Now()
				p.delete(t)
				eventually(t, "container has ended", func() error {
					if !p.alive(t, c.ID) {
						return nil
					}
					return errors.New("it runs")
				})
				// kubelet notices the missing file within a second or two.
				if took := time.Since(began); took < deletion.min || took > deletion.max {
					t.Errorf("the container ended after %s, want %s to %s", took, deletion.min, deletion.max)
				}
				if got, err := os.ReadFile(dir + "/log"); err != nil || string(got) != deletion.log {
					t.Errorf("the container wrote %q, %v", got, err)
				}
			})
		})
	}
}
