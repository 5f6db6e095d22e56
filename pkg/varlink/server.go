package varlink

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/klog/v2"
)

// Options describe a server.
type Options struct {
	Info       Info
	Interfaces []Interface
	Limits     Limits
}

// Server answers calls.
type Server struct {
	limits  Limits
	methods dispatcher
	open    *connections
}

// New returns a server of the interfaces.
func New(o Options) (*Server, error) {
	if o.Limits == (Limits{}) {
		o.Limits = DefaultLimits()
	}
	for _, i := range o.Interfaces {
		if i.Name == "" || i.Name == serviceName || i.Description == "" {
			return nil, fmt.Errorf("varlink interface %q: want a name of its own and a description", i.Name)
		}
	}
	return &Server{limits: o.Limits, methods: newDispatcher(o.Info, o.Interfaces), open: newConnections(o.Limits)}, nil
}

// Serve answers on the listener, which has to be one of a unix stream socket, until ctx ends, and closes it.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	defer s.open.closeAll()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() }) // Accept tells what came of it
	defer stop()
	accepts := rate.NewLimiter(rate.Limit(s.limits.AcceptsPerSecond), s.limits.AcceptsPerSecond)
	for {
		if err := accepts.Wait(ctx); err != nil {
			return nil //nolint:nilerr // ctx has ended, which is how Serve is told to
		}
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept varlink clients: %w", err)
		case err != nil: // no descriptor left, for one
			klog.FromContext(ctx).V(2).Info("Cannot accept a varlink client", "reason", err)
			continue
		}
		uid, err := peer(conn)
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Cannot tell a varlink client's user", "reason", err)
			_ = conn.Close()
			continue
		}
		c := s.open.add(conn, uid)
		clients.Go(func() {
			defer s.open.close(c)
			why := s.answer(ctx, c)
			klog.FromContext(ctx).V(5).Info("A varlink client is gone", "uid", uid, "reason", why)
		})
	}
}

// answer serves one client until it goes, takes too long, or sends what is no call, and returns which.
func (s *Server) answer(ctx context.Context, c *connection) error {
	in := bufio.NewReaderSize(c, s.limits.Message)
	for {
		if err := c.SetReadDeadline(time.Now().Add(s.limits.Read)); err != nil {
			return err
		}
		message, err := in.ReadSlice(0)
		if err != nil {
			return err
		}
		call, err := decodeCall(message[:len(message)-1])
		if err != nil {
			return err
		}
		s.open.touch(c)
		if err := s.admit(ctx, c); err != nil {
			return err
		}
		text, err := encodeReply(s.methods.call(call))
		if err != nil {
			return err
		}
		if call.Oneway {
			continue
		}
		if err := c.SetWriteDeadline(time.Now().Add(s.limits.Write)); err != nil {
			return err
		}
		if _, err := c.Write(text); err != nil {
			return err
		}
	}
}

// admit waits until the client's user may make another call.
func (s *Server) admit(ctx context.Context, c *connection) error {
	if c.uid == root {
		return nil
	}
	if err := c.user.calls.Wait(ctx); err != nil {
		return err
	}
	return s.open.all.Wait(ctx)
}
