package e2ekubelet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// transport is one way in which client-go comes to kubelet's server.
type transport struct {
	name     string
	executor func(u *url.URL) (remotecommand.Executor, error)
	dialer   func(u *url.URL) (httpstream.Dialer, error)
}

// insecure takes kubelet's own certificate.
var insecure = &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}

var transports = []transport{
	{
		name: "SPDY",
		executor: func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(insecure, http.MethodPost, u)
		},
		dialer: func(u *url.URL) (httpstream.Dialer, error) {
			trip, upgrader, err := spdy.RoundTripperFor(insecure)
			return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: trip}, http.MethodPost, u), err
		},
	},
	{
		name: "WebSocket",
		executor: func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(insecure, http.MethodGet, u.String())
		},
		dialer: func(u *url.URL) (httpstream.Dialer, error) {
			return portforward.NewSPDYOverWebsocketDialerForStreaming(u, insecure)
		},
	},
}

func eachTransport(t *testing.T, test func(t *testing.T, tr transport)) {
	t.Helper()
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			test(t, tr)
		})
	}
}

// stream runs one exec or attach to its end. A part of options that is nil is not asked for.
func (p *pod) stream(t *testing.T, tr transport, path string, query url.Values, options remotecommand.StreamOptions) error {
	t.Helper()
	for name, wanted := range map[string]bool{
		"input": options.Stdin != nil, "output": options.Stdout != nil, "error": options.Stderr != nil, "tty": options.Tty,
	} {
		if wanted {
			query.Set(name, "1")
		}
	}
	u := p.node.Reach(t, p.node.client.url)
	u.Path, u.RawQuery = path, query.Encode()
	executor, err := tr.executor(u)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return executor.StreamWithContext(ctx, options)
}

func (p *pod) execStream(t *testing.T, tr transport, options remotecommand.StreamOptions, argv ...string) error {
	t.Helper()
	return p.stream(t, tr, p.path("exec", "main"), url.Values{"command": argv}, options)
}

func TestExec(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, sleeper)
		p.ready(t)
		eachTransport(t, func(t *testing.T, tr transport) {
			var out, errs bytes.Buffer
			err := p.execStream(t, tr, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}, "sh", "-c", "id -u; echo problem >&2; exit 42")
			var exit utilexec.CodeExitError
			if !errors.As(err, &exit) || exit.Code != 42 || out.String() != "0\n" || errs.String() != "problem\n" {
				t.Errorf("the command ends with %v, having written %q and %q", err, out.String(), errs.String())
			}
			out.Reset()
			sent := strings.Repeat("all that is sent comes back\n", 50_000)
			err = p.execStream(t, tr, remotecommand.StreamOptions{Stdin: strings.NewReader(sent), Stdout: &out}, "cat")
			if err != nil || out.String() != sent {
				t.Errorf("cat returned %d of %d bytes, %v", out.Len(), len(sent), err)
			}
			out.Reset()
			// The size has a stream of its own, and can come later than the input.
			typed := strings.NewReader("until stty size | grep -q '^33 99$'; do sleep 0.1; done; stty size; exit\n")
			err = p.execStream(t, tr, remotecommand.StreamOptions{Stdin: typed, Stdout: &out, Tty: true, TerminalSizeQueue: &oneSize{}}, "sh")
			if err != nil || !strings.Contains(out.String(), "\n33 99\r\n") {
				t.Errorf("the terminal shows %q, %v", out.String(), err)
			}
		})
	})
}

// oneSize is a terminal that never changes its size.
type oneSize struct{ told bool }

func (s *oneSize) Next() *remotecommand.TerminalSize {
	if s.told {
		return nil
	}
	s.told = true
	return &remotecommand.TerminalSize{Width: 99, Height: 33}
}

func TestAttach(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		eachTransport(t, func(t *testing.T, tr transport) {
			p := n.run(t, hostUsers, `
restartPolicy: Never
containers:
- {name: main, image: IMAGE, stdin: true, stdinOnce: true, command: [sh, -c, 'echo early; while read x; do echo "read $x"; done; echo end; exit 3']}
`)
			p.ready(t)
			var out bytes.Buffer
			err := p.stream(t, tr, p.path("attach", "main"), url.Values{}, remotecommand.StreamOptions{Stdin: strings.NewReader("one\ntwo\n"), Stdout: &out, Stderr: io.Discard})
			if err != nil || !strings.HasSuffix(out.String(), "read one\nread two\nend\n") {
				t.Errorf("the client reads %q, %v", out.String(), err)
			}
			if got := ending(t, p.ended(t, "Failed"), "main").ExitCode; got != 3 {
				t.Errorf("the container ended with %d", got)
			}
			if got := p.logs(t, "main", nil); got != "early\nread one\nread two\nend\n" {
				t.Errorf("the log is %q", got)
			}
		})
	})
}

func TestPortForward(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'mkdir /tmp/w; echo forwarded > /tmp/w/x; exec httpd -f -p 127.0.0.1:8080 -h /tmp/w'], readinessProbe: {exec: {command: [wget, -qO-, 'http://127.0.0.1:8080/x']}, periodSeconds: 1}}
`)
		p.ready(t)
		eachTransport(t, func(t *testing.T, tr transport) {
			u := n.Reach(t, n.client.url)
			u.Path = p.path("portForward")
			local := forward(t, tr, u, 8080)
			for range 3 {
				resp, err := http.Get("http://" + local + "/x")
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != "forwarded\n" {
					t.Errorf("the client reads %q, %v", body, err)
				}
			}
		})
	})
}

// forward opens a local port that leads to one of the pod until the test ends.
func forward(t *testing.T, tr transport, u *url.URL, port int) (local string) {
	t.Helper()
	dialer, err := tr.dialer(u)
	if err != nil {
		t.Fatal(err)
	}
	stop, ready, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- forwarder.ForwardPorts() }()
	t.Cleanup(func() { close(stop); <-ended })
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("forward port: %v", err)
	case <-time.After(patience):
		t.Fatal("the port is not forwarded")
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(ports[0].Local))
}
