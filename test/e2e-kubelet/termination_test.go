package e2ekubelet

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestTerminationMessages(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
restartPolicy: Never
containers:
- {name: file, image: IMAGE, command: [sh, -c, 'echo logged; echo -n from the file > /dev/termination-log; exit 2']}
- {name: user, image: IMAGE, command: [sh, -c, 'echo -n from a user > /dev/termination-log'], securityContext: {runAsUser: 1000}}
- {name: path, image: IMAGE, command: [sh, -c, 'echo -n elsewhere > /tmp/message'], terminationMessagePath: /tmp/message}
- {name: log, image: IMAGE, command: [sh, -c, 'seq 1 200 >&2; echo last words >&2; exit 5'], terminationMessagePolicy: FallbackToLogsOnError}
- {name: fine, image: IMAGE, command: [sh, -c, 'echo logged'], terminationMessagePolicy: FallbackToLogsOnError}
- {name: missing, image: IMAGE, command: [/no/such/program], terminationMessagePolicy: FallbackToLogsOnError}
`)
		now := p.ended(t, corev1.PodFailed)
		for name, want := range map[string]struct {
			code    int32
			reason  string
			message string
		}{
			"file": {2, "Error", "from the file"},
			"user": {0, "Completed", "from a user"},
			"path": {0, "Completed", "elsewhere"},
			"fine": {0, "Completed", ""},
		} {
			got := ending(t, now, name)
			if got.ExitCode != want.code || got.Reason != want.reason || got.Message != want.message {
				t.Errorf("%s ended as %+v, want %+v", name, got, want)
			}
		}
		if got := ending(t, now, "log"); !strings.HasSuffix(got.Message, "199\n200\nlast words\n") || strings.Count(got.Message, "\n") != 80 {
			t.Errorf("the message of log is %q, want the last 80 lines", got.Message)
		}
		got := ending(t, now, "missing")
		if got.ExitCode != 128 || !strings.Contains(got.Message, "/no/such/program") || (got.Reason != "ContainerCannotRun" && got.Reason != "StartError") {
			t.Errorf("missing ended as %+v", got)
		}
	})
}

// TestLongTerminationMessageIsCut has a message that is longer than the 4096 bytes that kubelet takes.
func TestLongTerminationMessageIsCut(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
restartPolicy: Never
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'seq 1 5000 > /dev/termination-log']}
`)
		if got := ending(t, p.ended(t, corev1.PodSucceeded), "main").Message; len(got) != 4096 || !strings.HasSuffix(got, "\n5000\n") {
			t.Errorf("the message has %d bytes: %q", len(got), got)
		}
	})
}
