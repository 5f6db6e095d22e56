package stream

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"
	"testing"
)

// output is a client's output stream that keeps what it is given.
type output struct {
	mu     sync.Mutex
	data   bytes.Buffer
	closed bool
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, os.ErrClosed
	}
	return o.data.Write(p)
}

func (o *output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	return nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data.String()
}

// stalled is a client that takes nothing.
type stalled struct {
	once   sync.Once
	closed chan struct{}
}

func newStalled() *stalled { return &stalled{closed: make(chan struct{})} }

func (s *stalled) Write([]byte) (int, error) {
	<-s.closed
	return 0, os.ErrClosed
}

func (s *stalled) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// typist returns a client's input and the end to type into.
func typist(t *testing.T) (*io.PipeReader, *io.PipeWriter) {
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

// attach attaches in the background.
func attach(ctx context.Context, c *ContainerIO, s Streams, p Process) <-chan error {
	done := make(chan error, 1)
	go func() { done <- c.Attach(ctx, s, p) }()
	return done
}
