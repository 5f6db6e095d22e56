package stream

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runner is a Runtime whose methods are given by the test.
type runner struct {
	exec    func(ctx context.Context, id string, cmd []string, s Streams) (int, error)
	attach  func(ctx context.Context, id string, s Streams) error
	forward func(ctx context.Context, id string, port uint16, client io.ReadWriteCloser) error
}

func (r runner) Exec(ctx context.Context, id string, cmd []string, s Streams) (int, error) {
	return r.exec(ctx, id, cmd, s)
}

func (r runner) Attach(ctx context.Context, id string, s Streams) error {
	return r.attach(ctx, id, s)
}

func (r runner) PortForward(ctx context.Context, id string, port uint16, client io.ReadWriteCloser) error {
	return r.forward(ctx, id, port, client)
}

func startServer(t *testing.T, r Runtime) *Server {
	t.Helper()
	s, err := NewServer(t.Context(), ServerOptions{Address: "127.0.0.1:0", Runtime: r})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(within(t, 10*time.Second)); err != nil {
			t.Error(err)
		}
	})
	return s
}

var restConfig rest.Config

// protocols are the ways in which a client can come. In the fourth version over WebSocket
// a client cannot end its stdin alone.
var protocols = map[string]func(*url.URL) (remotecommand.Executor, error){
	"SPDY": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(&restConfig, http.MethodPost, u)
	},
	"WebSocket": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(&restConfig, http.MethodGet, u.String())
	},
	"WebSocket v4": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutorForProtocols(&restConfig, http.MethodGet, u.String(), "v4.channel.k8s.io")
	},
}

func overEach(t *testing.T, test func(t *testing.T, connect func(rawURL string) remotecommand.Executor)) {
	for name, newExecutor := range protocols {
		t.Run(name, func(t *testing.T) {
			test(t, func(rawURL string) remotecommand.Executor {
				u, err := url.Parse(rawURL)
				if err != nil {
					t.Fatal(err)
				}
				e, err := newExecutor(u)
				if err != nil {
					t.Fatal(err)
				}
				return e
			})
		})
	}
}

func execURL(t *testing.T, s *Server, req *runtimeapi.ExecRequest) string {
	t.Helper()
	resp, err := s.GetExec(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetUrl()
}

func TestServerExec(t *testing.T) {
	s := startServer(t, runner{exec: func(_ context.Context, id string, cmd []string, s Streams) (int, error) {
		in, err := io.ReadAll(s.Stdin)
		_, _ = fmt.Fprintf(s.Stdout, "%s %q read %d", id, cmd, len(in))
		_, _ = io.WriteString(s.Stderr, "oops")
		return 7, err
	}})
	for _, name := range []string{"SPDY", "WebSocket"} {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(execURL(t, s, &runtimeapi.ExecRequest{
				ContainerId: "c1", Cmd: []string{"ls", "-l"}, Stdin: true, Stdout: true, Stderr: true,
			}))
			if err != nil {
				t.Fatal(err)
			}
			e, err := protocols[name](u)
			if err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{
				Stdin: strings.NewReader(strings.Repeat("x", 100_000)), Stdout: &out, Stderr: &errs,
			})
			var exit utilexec.ExitError
			if !errors.As(err, &exit) || exit.ExitStatus() != 7 {
				t.Errorf("Stream: %v, want exit code 7", err)
			}
			if out.String() != `c1 ["ls" "-l"] read 100000` || errs.String() != "oops" {
				t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
			}
		})
	}
}

func TestServerExecOutput(t *testing.T) {
	payload := make([]byte, 3<<20)
	_, _ = rand.Read(payload)
	overEach(t, func(t *testing.T, connect func(string) remotecommand.Executor) {
		s := startServer(t, runner{exec: func(_ context.Context, _ string, _ []string, s Streams) (int, error) {
			if s.Stdin != nil || s.Stderr != nil {
				return 0, errors.New("streams that nobody asked for")
			}
			_, err := s.Stdout.Write(payload)
			return 0, err
		}})
		var out bytes.Buffer
		e := connect(execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c1", Stdout: true}))
		if err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), payload) {
			t.Errorf("got %d bytes, want %d", out.Len(), len(payload))
		}
	})
}

func TestServerExecError(t *testing.T) {
	overEach(t, func(t *testing.T, connect func(string) remotecommand.Executor) {
		s := startServer(t, runner{exec: func(context.Context, string, []string, Streams) (int, error) {
			return 0, errors.New("no such executable")
		}})
		e := connect(execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c1", Stdout: true}))
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
		if err == nil || !strings.Contains(err.Error(), "no such executable") {
			t.Errorf("Stream: %v", err)
		}
	})
}

type sizeQueue chan remotecommand.TerminalSize

func (q sizeQueue) Next() *remotecommand.TerminalSize {
	s, ok := <-q
	if !ok {
		return nil
	}
	return &s
}

func TestServerTerminal(t *testing.T) {
	overEach(t, func(t *testing.T, connect func(string) remotecommand.Executor) {
		s := startServer(t, runner{attach: func(_ context.Context, id string, s Streams) error {
			size := <-s.Resize
			key := make([]byte, 1)
			_, err := s.Stdin.Read(key)
			_, _ = fmt.Fprintf(s.Stdout, "%s %dx%d %q tty %v", id, size.Width, size.Height, key, s.TTY)
			return err
		}})
		resp, err := s.GetAttach(&runtimeapi.AttachRequest{ContainerId: "c1", Stdin: true, Stdout: true, Tty: true})
		if err != nil {
			t.Fatal(err)
		}
		sizes := make(sizeQueue, 1)
		defer close(sizes)
		sizes <- remotecommand.TerminalSize{Width: 80, Height: 25}
		in, keys := typist(t)
		go func() { _, _ = keys.Write([]byte("x")) }()
		var out bytes.Buffer
		err = connect(resp.GetUrl()).StreamWithContext(t.Context(), remotecommand.StreamOptions{
			Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: sizes,
		})
		if want := `c1 80x25 "x" tty true`; err != nil || out.String() != want {
			t.Errorf("got %q, %v; want %q", out.String(), err, want)
		}
	})
}

// A client that goes away ends the context, whatever the session is doing.
func TestServerClientGoes(t *testing.T) {
	pour := func(_ context.Context, s Streams) {
		for {
			if _, err := s.Stdout.Write(make([]byte, 10_000)); err != nil {
				return
			}
		}
	}
	for name, work := range map[string]func(context.Context, Streams){
		"silent":  func(ctx context.Context, _ Streams) { <-ctx.Done() },
		"reading": func(_ context.Context, s Streams) { _, _ = io.Copy(io.Discard, s.Stdin) },
		"writing": pour,
		"stalled": pour,
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, func(t *testing.T, connect func(string) remotecommand.Executor) {
				started, cause := make(chan struct{}), make(chan error, 1)
				s := startServer(t, runner{exec: func(ctx context.Context, _ string, _ []string, s Streams) (int, error) {
					close(started)
					work(ctx, s)
					<-ctx.Done()
					cause <- context.Cause(ctx)
					return 0, nil
				}})
				e := connect(execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c1", Stdin: true, Stdout: true}))
				ctx, leave := context.WithCancel(t.Context())
				in, _ := typist(t)
				out := io.Discard
				if name == "stalled" {
					client := newStalled()
					defer client.Close()
					out = client
				}
				done := make(chan error, 1)
				go func() {
					done <- e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out})
				}()
				select {
				case <-started:
				case err := <-done:
					t.Fatalf("client ended early: %v", err)
				}
				if name == "stalled" {
					time.Sleep(time.Second) // until all that can be on its way is
				}
				leave()
				<-done
				select {
				case err := <-cause:
					if !errors.Is(err, ErrClientGone) {
						t.Errorf("cause %v, want ErrClientGone", err)
					}
				case <-time.After(10 * time.Second):
					t.Error("session goes on without its client")
				}
			})
		})
	}
}

func TestServerManyStreams(t *testing.T) {
	const clients = 50
	overEach(t, func(t *testing.T, connect func(string) remotecommand.Executor) {
		s := startServer(t, runner{exec: func(_ context.Context, id string, _ []string, s Streams) (int, error) {
			buf := make([]byte, 10_000)
			if _, err := io.ReadFull(s.Stdin, buf); err != nil {
				return 0, err
			}
			_, _ = io.WriteString(s.Stdout, id+strings.ToUpper(string(buf)))
			_, _ = io.WriteString(s.Stderr, id)
			return 0, nil
		}})
		var all sync.WaitGroup
		for i := range clients {
			id := fmt.Sprintf("c%d", i)
			e := connect(execURL(t, s, &runtimeapi.ExecRequest{ContainerId: id, Stdin: true, Stdout: true, Stderr: true}))
			all.Go(func() {
				in, keys := io.Pipe()
				defer in.Close()
				go func() { _, _ = io.WriteString(keys, strings.Repeat("a", 10_000)) }()
				var out, errs bytes.Buffer
				err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: in, Stdout: &out, Stderr: &errs})
				if err != nil || out.String() != id+strings.Repeat("A", 10_000) || errs.String() != id {
					t.Errorf("%s: %d bytes, %q, %v", id, out.Len(), errs.String(), err)
				}
			})
		}
		all.Wait()
	})
}

func TestServerTokens(t *testing.T) {
	s := startServer(t, runner{exec: func(context.Context, string, []string, Streams) (int, error) { return 0, nil }})
	overEach(t, func(t *testing.T, connect func(string) remotecommand.Executor) {
		u := execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c1", Stdout: true})
		if err := connect(u).StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard}); err != nil {
			t.Errorf("first use: %v", err)
		}
		err := connect(u).StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
		if err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("second use of a token: %v, want 404", err)
		}
	})
	for _, path := range []string{"/", "/exec/", "/exec/guess", "/attach/guess", "/o/exec/guess", "/o/attach/guess", "/portforward/guess"} {
		resp, err := http.Get("http://" + s.Address() + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s", path, resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestServerRefusesRequests(t *testing.T) {
	s := startServer(t, runner{})
	for _, req := range []*runtimeapi.ExecRequest{
		{},
		{Stdout: true},
		{ContainerId: "c1"},
		{ContainerId: "c1", Stdout: true, Stderr: true, Tty: true},
	} {
		if resp, err := s.GetExec(req); err == nil {
			t.Errorf("GetExec(%v) = %v", req, resp)
		}
		attach := &runtimeapi.AttachRequest{ContainerId: req.ContainerId, Stdout: req.Stdout, Stderr: req.Stderr, Tty: req.Tty}
		if resp, err := s.GetAttach(attach); err == nil {
			t.Errorf("GetAttach(%v) = %v", attach, resp)
		}
	}
	if resp, err := s.GetPortForward(&runtimeapi.PortForwardRequest{}); err == nil {
		t.Errorf("GetPortForward = %v", resp)
	}
}

// Close ends sessions, although their clients stay, and frees the address.
func TestServerClose(t *testing.T) {
	overEach(t, func(t *testing.T, connect func(string) remotecommand.Executor) {
		started, cause := make(chan struct{}), make(chan error, 1)
		s := startServer(t, runner{attach: func(ctx context.Context, _ string, s Streams) error {
			close(started)
			_, _ = io.Copy(io.Discard, s.Stdin)
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return nil
		}})
		resp, err := s.GetAttach(&runtimeapi.AttachRequest{ContainerId: "c1", Stdin: true, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		e := connect(resp.GetUrl())
		in, _ := typist(t)
		done := make(chan error, 1)
		go func() {
			done <- e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: in, Stdout: io.Discard})
		}()
		select {
		case <-started:
		case err := <-done:
			t.Fatalf("client ended early: %v", err)
		}
		if err := s.Close(within(t, 5*time.Second)); err != nil {
			t.Error(err)
		}
		if err := <-cause; !errors.Is(err, ErrReleased) {
			t.Errorf("cause %v, want ErrReleased", err)
		}
		_ = in.Close()
		<-done
		again, err := net.Listen("tcp", s.Address())
		if err != nil {
			t.Fatalf("address is not free: %v", err)
		}
		_ = again.Close()
	})
}
