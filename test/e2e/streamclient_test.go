package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// transport is one way in which client-go comes to a streaming URL.
type transport struct {
	name     string
	executor func(u *url.URL) (remotecommand.Executor, error)
	dialer   func(u *url.URL) (httpstream.Dialer, error)
}

var transports = []transport{
	{
		name: "SPDY",
		executor: func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, u)
		},
		dialer: func(u *url.URL) (httpstream.Dialer, error) {
			trip, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
			return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: trip}, http.MethodPost, u), err
		},
	},
	{
		name: "WebSocket",
		executor: func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(&rest.Config{}, http.MethodGet, u.String())
		},
		dialer: func(u *url.URL) (httpstream.Dialer, error) {
			return portforward.NewSPDYOverWebsocketDialerForStreaming(u, &rest.Config{})
		},
	},
}

func eachTransport(t *testing.T, test func(t *testing.T, tr transport)) {
	t.Helper()
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) { test(t, tr) })
	}
}

// reach returns a URL at which the test reaches a server of the node's own network.
func reach(t *testing.T, n *nodetest.Node, rawURL string) *url.URL {
	t.Helper()
	return n.Reach(t, rawURL)
}

// streams are what a client asks for, and its ends of them.
type streams struct {
	in        io.Reader
	out, errs io.Writer
	tty       bool
	sizes     remotecommand.TerminalSizeQueue
}

func (s streams) options() remotecommand.StreamOptions {
	return remotecommand.StreamOptions{Stdin: s.in, Stdout: s.out, Stderr: s.errs, Tty: s.tty, TerminalSizeQueue: s.sizes}
}

// execURL asks CRI for the URL of a command.
func execURL(t *testing.T, n *nodetest.Node, c *nodetest.Container, s streams, argv ...string) *url.URL {
	t.Helper()
	resp, err := n.Runtime.Exec(t.Context(), &runtimeapi.ExecRequest{
		ContainerId: c.ID, Cmd: argv, Tty: s.tty, Stdin: s.in != nil, Stdout: s.out != nil, Stderr: s.errs != nil,
	})
	if err != nil {
		t.Fatalf("Exec: %v", err)
	}
	return reach(t, n, resp.Url)
}

// startExec runs a command for a client in the background.
func startExec(ctx context.Context, t *testing.T, n *nodetest.Node, tr transport, c *nodetest.Container, s streams, argv ...string) <-chan error {
	t.Helper()
	return stream(ctx, t, tr, execURL(t, n, c, s, argv...), s)
}

// startAttach attaches a client in the background.
func startAttach(ctx context.Context, t *testing.T, n *nodetest.Node, tr transport, c *nodetest.Container, s streams) <-chan error {
	t.Helper()
	resp, err := n.Runtime.Attach(t.Context(), &runtimeapi.AttachRequest{
		ContainerId: c.ID, Tty: s.tty, Stdin: s.in != nil, Stdout: s.out != nil, Stderr: s.errs != nil,
	})
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	return stream(ctx, t, tr, reach(t, n, resp.Url), s)
}

func stream(ctx context.Context, t *testing.T, tr transport, u *url.URL, s streams) <-chan error {
	t.Helper()
	executor, err := tr.executor(u)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		err := executor.StreamWithContext(ctx, s.options())
		// Nobody reads what is typed from now on.
		if keys, ok := s.in.(*io.PipeReader); ok {
			_ = keys.Close()
		}
		done <- err
	}()
	return done
}

// await waits for a client's end.
func await(t *testing.T, what string, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		t.Fatalf("%s: the client has not ended after a minute", what)
		return nil
	}
}

// exitCode is the code with which client-go says that a command ended.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var exit utilexec.CodeExitError
	if !errors.As(err, &exit) {
		t.Fatalf("the client ends with %T %v, want an exit code", err, err)
	}
	return exit.Code
}

// screen is a client's output that may be read while it is written.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the client sees %q", text), func() bool { return strings.Contains(s.String(), text) })
}

// keyboard is a client's input that stays open.
func keyboard(t *testing.T) (*io.PipeReader, *io.PipeWriter) {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func typeIn(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// resizes is a terminal whose size changes when something is sent to it.
type resizes chan remotecommand.TerminalSize

func (r resizes) Next() *remotecommand.TerminalSize {
	size, ok := <-r
	if !ok {
		return nil
	}
	return &size
}

func digestOf(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
