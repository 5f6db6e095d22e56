package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
)

// Runtime carries out what clients ask for. A method's ctx ends with the cause
// ErrClientGone when the client's connection breaks, and with ErrReleased when the
// server closes; blocked calls on the streams then return. (PortForward's ends with
// ErrReleased only; the breaking connection ends its stream.)
type Runtime interface {
	// Exec runs cmd in the container until it exits, and returns its exit code.
	Exec(ctx context.Context, containerID string, cmd []string, s Streams) (int, error)
	// Attach connects the client to the container's first process.
	Attach(ctx context.Context, containerID string, s Streams) error
	// PortForward connects client to a port of the pod; see ForwardPort.
	PortForward(ctx context.Context, sandboxID string, port uint16, client io.ReadWriteCloser) error
}

// ServerOptions describe a Server. Zero timeouts mean the defaults of cri-streaming.
type ServerOptions struct {
	Address         string // host:port to listen on; port 0 picks a free one
	Runtime         Runtime
	IdleTimeout     time.Duration // after which a connection without traffic is closed; default 4 h
	CreationTimeout time.Duration // for a client to open its streams; default 30 s
}

// Server gives out URLs for exec, attach and port-forward, and serves the clients that
// come there, which on a node is kubelet on behalf of the API server. It speaks SPDY
// and WebSocket, without TLS and without asking who the client is: the random token in
// a URL, valid once and for a minute, is what admits it. So the address must be one
// that only the node can reach.
type Server struct {
	logger    klog.Logger
	runtime   Runtime
	streaming streaming.Server
	idle      time.Duration
	http      *http.Server
	listener  *listener
	serving   sync.WaitGroup

	// active owns the requests and, beyond a request's end, the goroutines that still
	// read from its connection.
	active sessions
}

// NewServer listens on the address and serves until Close. ctx carries the logger.
func NewServer(ctx context.Context, opts ServerOptions) (*Server, error) {
	tcp, err := new(net.ListenConfig).Listen(ctx, "tcp", opts.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for streaming clients: %w", err)
	}
	s := &Server{logger: klog.FromContext(ctx), runtime: opts.Runtime, listener: newListener(tcp)}
	config := opts.config(tcp.Addr())
	s.idle = config.StreamIdleTimeout
	s.streaming, err = streaming.NewServer(config, &adapter{server: s})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("streaming server: %w", err), tcp.Close())
	}
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return klog.NewContext(context.Background(), s.logger) },
		ConnContext:       s.listener.connContext,
	}
	s.serving.Go(func() {
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.logger.Error(err, "Streaming server stopped", "address", s.Address())
		}
	})
	return s, nil
}

func (o ServerOptions) config(addr net.Addr) streaming.Config {
	c := streaming.DefaultConfig
	c.Addr = addr.String()
	c.BaseURL = &url.URL{Scheme: "http", Host: c.Addr, Path: "/"}
	c.SupportedRemoteCommandProtocols = remotecommand.SupportedStreamingProtocols
	c.SupportedPortForwardProtocols = portforward.SupportedProtocols
	if o.IdleTimeout != 0 {
		c.StreamIdleTimeout = o.IdleTimeout
	}
	if o.CreationTimeout != 0 {
		c.StreamCreationTimeout = o.CreationTimeout
	}
	return c
}

// Address is the host:port that the server listens on.
func (s *Server) Address() string { return s.listener.Addr().String() }

// GetExec returns the URL at which the request will be served, once. Errors carry gRPC
// codes: InvalidArgument, and ResourceExhausted with too many URLs unused.
func (s *Server) GetExec(req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	want := wanted{req.GetStdin(), req.GetStdout(), req.GetStderr(), req.GetTty()}
	resp, err := s.streaming.GetExec(&runtimeapi.ExecRequest{
		ContainerId: want.encode(req.GetContainerId()),
		Cmd:         req.GetCmd(),
		Tty:         want.tty,
		Stdin:       want.stdin,
		Stdout:      want.stdout,
		Stderr:      want.stderr,
	})
	if err != nil {
		return nil, err
	}
	resp.Url, err = want.mark(resp.GetUrl())
	return resp, err
}

// GetAttach is GetExec for the container's first process.
func (s *Server) GetAttach(req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	want := wanted{req.GetStdin(), req.GetStdout(), req.GetStderr(), req.GetTty()}
	resp, err := s.streaming.GetAttach(&runtimeapi.AttachRequest{
		ContainerId: want.encode(req.GetContainerId()),
		Tty:         want.tty,
		Stdin:       want.stdin,
		Stdout:      want.stdout,
		Stderr:      want.stderr,
	})
	if err != nil {
		return nil, err
	}
	resp.Url, err = want.mark(resp.GetUrl())
	return resp, err
}

// GetPortForward is GetExec for the ports of a pod.
func (s *Server) GetPortForward(req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return s.streaming.GetPortForward(req)
}

// Close breaks all connections and waits, until ctx ends, for what they started.
func (s *Server) Close(ctx context.Context) error {
	s.active.end(ErrReleased) // before the connections break, which would look like clients that go
	err := errors.Join(s.http.Close(), s.listener.closeConns())
	s.serving.Wait()
	if err := errors.Join(err, s.active.wait(ctx)); err != nil {
		return fmt.Errorf("close streaming server: %w", err)
	}
	return nil
}
