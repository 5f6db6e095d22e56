package stream

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
)

// listener hands out connections that tell when they break. A request that has taken
// over its connection (SPDY, WebSocket) gets no such word from net/http.
type listener struct {
	net.Listener

	mu     sync.Mutex
	conns  map[*clientConn]struct{}
	closed bool
}

func newListener(l net.Listener) *listener {
	return &listener{Listener: l, conns: make(map[*clientConn]struct{})}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &clientConn{Conn: conn, from: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	l.conns[c] = struct{}{}
	return c, nil
}

// connContext makes the context of a connection's requests end when it breaks.
func (l *listener) connContext(ctx context.Context, conn net.Conn) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	c := conn.(*clientConn) // Accept gives out no other
	c.onBreak(func() { cancel(ErrClientGone) })
	return ctx
}

// closeConns closes what is open, requests that took over their connection included,
// and lets nothing follow.
func (l *listener) closeConns() error {
	l.mu.Lock()
	l.closed = true
	conns := make([]*clientConn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// clientConn notices its own end: when it is closed, or a read says that the other
// side is gone.
type clientConn struct {
	net.Conn
	from *listener

	once   sync.Once
	mu     sync.Mutex
	ended  bool
	notify func()
}

// Read implements net.Conn. A timeout is no end: net/http uses one to stop its own
// reading when a request takes over the connection.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.end()
	}
	return n, err
}

// Close implements net.Conn. Closing twice is no error: spdystream keeps a goroutine
// for ten minutes when it cannot report one.
func (c *clientConn) Close() error {
	c.end()
	var err error
	c.once.Do(func() {
		c.from.mu.Lock()
		delete(c.from.conns, c)
		c.from.mu.Unlock()
		err = c.Conn.Close()
	})
	return err
}

func (c *clientConn) onBreak(notify func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notify = notify
	if c.ended {
		notify()
	}
}

func (c *clientConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.notify != nil {
		c.notify()
	}
}
