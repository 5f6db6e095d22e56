package stream

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/userns-shim/userns-shim/pkg/stream/fifo"
)

// stdinPipe is the write end of a process's stdin, opened when the first client
// writes. Until then, and after a restart, the shim's own write end keeps the
// process from seeing the end of its input.
type stdinPipe struct {
	path string
	turn chan struct{} // capacity 1; its holder may use file and shut
	file *os.File
	shut bool
}

func newStdinPipe(path string) *stdinPipe {
	return &stdinPipe{path: path, turn: make(chan struct{}, 1)}
}

// copyFrom copies r until it ends or breaks, which are both the end of the client's
// input (nil), or the process's stdin cannot be written. Clients take turns for each
// piece that they send.
func (s *stdinPipe) copyFrom(ctx context.Context, r io.Reader) error {
	buf := make([]byte, readBytes)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := s.write(ctx, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

func (s *stdinPipe) write(ctx context.Context, p []byte) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.turn }()
	if s.shut {
		return os.ErrClosed
	}
	if s.file == nil {
		file, err := fifo.OpenWriter(ctx, s.path)
		if err != nil {
			return err
		}
		s.file = file
	}
	// A process that does not read its stdin must not hold up a client that leaves.
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = s.file.SetWriteDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	_, err := s.file.Write(p)
	if !stop() {
		<-interrupted
		err = errors.Join(err, s.file.SetWriteDeadline(time.Time{}))
	}
	return err
}

// close lets go of the write end. The process sees the end of its input when the shim
// has let go too.
func (s *stdinPipe) close(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.turn }()
	s.shut = true
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// closeStdin ends the process's input: both write ends, ours and the shim's. It has a
// bound of its own, because it runs when a client has left.
func closeStdin(ctx context.Context, s *stdinPipe, p Process) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(s.close(ctx), p.CloseStdin(ctx))
}
