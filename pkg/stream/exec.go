package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/stream/fifo"
)

// ExecOptions describe an ExecIO.
type ExecOptions struct {
	Dir     string // where the FIFOs are made
	ID      string // the exec's id, unique in Dir
	Streams Streams
}

// ExecIO connects one client to a process that is exec'd for it. Its steps: OpenExec,
// start the process with Paths, Connect, wait for the exit, Drain, Close.
//
// A client that goes away does not end the process, as in containerd: its output is
// thrown away from then on, and its stdin ends. With a terminal that hangs the
// terminal up, so the kernel sends SIGHUP to its foreground processes.
type ExecIO struct {
	id      string
	set     fifo.Set
	streams Streams
	stdin   *stdinPipe // nil without a stdin
	pumps   *pumps
	inputs  sessions
}

// OpenExec makes the FIFOs and starts to copy output. Close must be called.
func OpenExec(ctx context.Context, opts ExecOptions) (*ExecIO, error) {
	set, err := fifo.NewSet(opts.Dir, opts.ID, opts.Streams.Stdin != nil, opts.Streams.TTY)
	if err != nil {
		return nil, err
	}
	if err := set.Create(); err != nil {
		return nil, errors.Join(err, set.Remove())
	}
	e := &ExecIO{id: opts.ID, set: set, streams: opts.Streams}
	if set.Stdin != "" {
		e.stdin = newStdinPipe(set.Stdin)
	}
	ctx = klog.NewContext(ctx, klog.LoggerWithValues(klog.FromContext(ctx), "exec", opts.ID))
	e.pumps, err = startPumps(ctx, set, &clientSink{to: opts.Streams.Stdout}, &clientSink{to: opts.Streams.Stderr})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stdio of exec %s: %w", opts.ID, err), set.Remove())
	}
	return e, nil
}

// Paths are the FIFOs to start the process with.
func (e *ExecIO) Paths() fifo.Set { return e.set }

// Connect starts to copy the client's input and terminal sizes to the started process.
// The end of the input ends the process's stdin, except a terminal's, which has no
// half-close. ctx is the client's: Server ends it with ErrClientGone.
func (e *ExecIO) Connect(ctx context.Context, p Process) error {
	ctx, leave, err := e.inputs.begin(ctx)
	if err != nil {
		return fmt.Errorf("connect exec %s: %w", e.id, err)
	}
	resized := make(chan struct{})
	go func() {
		defer close(resized)
		if e.streams.TTY && e.streams.Resize != nil {
			forwardResize(ctx, e.streams.Resize, p)
		}
	}()
	go func() {
		defer leave()
		if e.stdin != nil {
			e.input(ctx, p)
		}
		<-resized
	}()
	return nil
}

func (e *ExecIO) input(ctx context.Context, p Process) {
	err := e.stdin.copyFrom(ctx, e.streams.Stdin)
	if err != nil && ctx.Err() == nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
		klog.FromContext(ctx).Error(err, "Client's input does not reach the process", "exec", e.id)
	}
	if err != nil || e.streams.TTY {
		<-ctx.Done()
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ErrClientGone) {
		return // the process has exited, or userns-shim stops
	}
	if err := closeStdin(ctx, e.stdin, p); err != nil {
		klog.FromContext(ctx).V(2).Info("Process's stdin was not closed", "exec", e.id, "err", err)
	}
}

// Drain waits, after the process has exited, until the client has its output. It
// returns ErrNotDrained when ctx ends first: a child of the process may hold the
// output open, or the client may not take it.
func (e *ExecIO) Drain(ctx context.Context) error {
	if err := e.pumps.drain(ctx); err != nil {
		return fmt.Errorf("drain output of exec %s: %w", e.id, err)
	}
	return nil
}

// Close ends all copying, closes the client's streams and removes the FIFOs.
func (e *ExecIO) Close(ctx context.Context) error {
	e.inputs.end(errSessionOver)
	for _, c := range []io.Closer{e.streams.Stdin, e.streams.Stdout, e.streams.Stderr} {
		if c != nil {
			_ = c.Close() // ends what blocks on the client; there is nobody to tell of an error
		}
	}
	err := errors.Join(e.pumps.stop(ctx), e.inputs.wait(ctx))
	if e.stdin != nil {
		err = errors.Join(err, e.stdin.close(ctx))
	}
	if err := errors.Join(err, e.set.Remove()); err != nil {
		return fmt.Errorf("close stdio of exec %s: %w", e.id, err)
	}
	return nil
}

// clientSink writes to the one client of an exec, who holds the process back when it
// is slow. Once the client is gone, or when it did not ask for the stream, output is
// thrown away, so that the process does not block.
type clientSink struct {
	to   io.WriteCloser
	gone bool
}

func (s *clientSink) write(_ context.Context, p []byte) {
	if s.to == nil || s.gone {
		return
	}
	if _, err := s.to.Write(p); err != nil {
		s.gone = true
	}
}

// end tells the client that no output follows.
func (s *clientSink) end(context.Context) {
	if s.to != nil {
		_ = s.to.Close()
	}
}
