package e2ekubelet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// logs asks kubelet for a container's log.
func (p *pod) logs(t testing.TB, container string, query url.Values) string {
	t.Helper()
	text, err := p.node.client.get(t.Context(), p.path("containerLogs", container), query)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// path is that of one of the pod's things at kubelet's server.
func (p *pod) path(kind string, rest ...string) string {
	return "/" + strings.Join(append([]string{kind, namespace, p.name}, rest...), "/")
}

func TestLogs(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'echo out; echo err >&2; sleep 1; seq 1 1000; head -c 20000 /dev/zero | tr "\0" x; echo; echo end; sleep infinity']}
- {name: user, image: IMAGE, command: [sh, -c, 'echo of a user > /dev/stdout; echo more > /dev/stderr; sleep infinity'], securityContext: {runAsUser: 1000}}
`)
		p.ready(t)
		eventually(t, "the log is complete", func() error {
			got := p.logs(t, "main", nil)
			if !strings.HasSuffix(got, "\nend\n") {
				return fmt.Errorf("%d bytes end with %q", len(got), got[max(0, len(got)-100):])
			}
			return nil
		})
		all := p.logs(t, "main", nil)
		for _, want := range []string{"out\n", "err\n", "\n1\n2\n3\n", "\n1000\n" + strings.Repeat("x", 20000) + "\nend\n"} {
			if !strings.Contains(all, want) {
				t.Errorf("the log of %d bytes lacks %.60q", len(all), want)
			}
		}
		if got := p.logs(t, "main", url.Values{"tailLines": {"1"}}); got != "end\n" {
			t.Errorf("the last line is %q", got)
		}
		if got := p.logs(t, "main", url.Values{"limitBytes": {"2"}}); len(got) != 2 {
			t.Errorf("two bytes are %q", got)
		}
		at, line, _ := strings.Cut(p.logs(t, "main", url.Values{"tailLines": {"1"}, "timestamps": {"true"}}), " ")
		if when, err := time.Parse(time.RFC3339Nano, at); err != nil || line != "end\n" || time.Since(when) > patience {
			t.Errorf("the last line with its time is %q %q, %v", at, line, err)
		}
		if got := p.logs(t, "main", url.Values{"sinceTime": {time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}}); got != "" {
			t.Errorf("the log of the future is %q", got)
		}
		if got := p.logs(t, "user", nil); !strings.Contains(got, "of a user\n") || !strings.Contains(got, "more\n") {
			t.Errorf("the user's log is %q", got)
		}
	})
}

func TestLogsOfThePreviousContainer(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'if [ -e /shared/x ]; then echo second; sleep infinity; fi; touch /shared/x; echo first; exit 1'], volumeMounts: [{name: shared, mountPath: /shared}]}
volumes: [{name: shared, emptyDir: {}}]
`)
		p.awaitRestart(t, "main")
		eventually(t, "the second one has written", func() error {
			if got := p.logs(t, "main", nil); got != "second\n" {
				return errors.New(got)
			}
			return nil
		})
		if got := p.logs(t, "main", url.Values{"previous": {"true"}}); got != "first\n" {
			t.Errorf("the log of the first one is %q", got)
		}
	})
}

// TestFollowedLog reads a log while it is written, until the container ends.
func TestFollowedLog(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
restartPolicy: Never
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'echo begin; until [ -e /tmp/go ]; do sleep 0.1; done; for i in 1 2 3; do echo $i; sleep 0.2; done; echo end']}
`)
		p.ready(t)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.client.url+p.path("containerLogs", "main")+"?follow=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := n.client.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		var got []string
		for lines.Scan() {
			got = append(got, lines.Text())
			if lines.Text() == "begin" {
				p.sh(t, "touch /tmp/go")
			}
		}
		if err := lines.Err(); err != nil || strings.Join(got, " ") != "begin 1 2 3 end" {
			t.Errorf("the client reads %q, %v", got, err)
		}
	})
}
