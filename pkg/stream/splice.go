package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

const (
	// lingerTime is how long, after the pod has finished sending, a client may be
	// silent before it is taken for one that forgot to end. kubectl ends at once.
	lingerTime = 30 * time.Second
	// probeTime is how often a client that has finished sending is asked whether it
	// still listens, while the pod takes its time to answer.
	probeTime = 5 * time.Second
)

// splice copies between a client and a pod's TCP connection, each direction until it
// ends, so that either side may finish sending and go on receiving.
type splice struct {
	client        io.ReadWriteCloser
	pod           *net.TCPConn
	linger, probe time.Duration
	sent          atomic.Int64 // bytes from the client to the pod
	podErr        error        // why the pod's side broke; read after its direction has ended
}

// run returns when both directions have ended, or the client is gone, or ctx ends. Its
// error is the pod's: a connection that was reset.
func (s *splice) run(ctx context.Context) error {
	up, down := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(writerFunc(s.toPod), s.client)
		_ = s.pod.CloseWrite() // a pod that is gone shows in the other direction
	}()
	go func() {
		defer close(down)
		// The wrappers keep io.Copy from methods that hide which side an error is of.
		_, err := io.Copy(struct{ io.Writer }{s.client}, struct{ io.Reader }{s.pod})
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "read" {
			s.podErr = err
		}
		_ = s.client.Close() // with SPDY, the half-close
	}()
	cause := s.supervise(ctx, up, down)
	s.release()
	<-up
	<-down
	if cause != nil {
		return nil // we broke the connection: its errors are not the pod's
	}
	return s.podErr
}

var errIdle = errors.New("client is silent")

// supervise waits for the end of both directions, or of the pod (nil), or for a reason
// to break off.
func (s *splice) supervise(ctx context.Context, up, down <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-up:
		return poll(ctx, s.probe, down, s.clientGone)
	case <-down:
		if s.podErr != nil {
			return nil
		}
		before := int64(-1)
		return poll(ctx, s.linger, up, func() error {
			now := s.sent.Load()
			if now == before {
				return errIdle
			}
			before = now
			return nil
		})
	}
}

// poll waits for done, and asks check first and then at each interval.
func poll(ctx context.Context, interval time.Duration, done <-chan struct{}, check func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := check(); err != nil {
			return err
		}
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// clientGone tells a client that has finished sending from one whose stream was reset
// or whose connection is lost. All three end Read alike; a write of nothing, which the
// protocols carry and clients ignore, fails for the latter.
func (s *splice) clientGone() error {
	if c, ok := s.client.(interface{ IsFinished() bool }); ok && c.IsFinished() {
		return ErrClientGone
	}
	if _, err := s.client.Write(nil); err != nil {
		return ErrClientGone
	}
	return nil
}

// release ends both directions. Reading from a SPDY stream ends with Reset only,
// which after Close sends nothing.
func (s *splice) release() {
	_ = s.pod.Close()
	_ = s.client.Close()
	if c, ok := s.client.(interface{ Reset() error }); ok {
		_ = c.Reset()
	}
}

func (s *splice) toPod(p []byte) (int, error) {
	n, err := s.pod.Write(p)
	s.sent.Add(int64(n))
	return n, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
