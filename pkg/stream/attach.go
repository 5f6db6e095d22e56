package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"k8s.io/klog/v2"
)

// Attach connects a client to the running container until the container's output
// ends, the client goes, or ctx ends. It starts with the output that comes from now on.
//
// The end of the client's input ends the session, unless the container's stdin ends
// with it (StdinOnce without a terminal): then CloseStdin of p is called, and the
// client gets output to its end. This is what kubectl expects, and containerd does.
//
// It returns ErrSlowClient when the client did not take its output, and nil when the
// client has gone.
func (c *ContainerIO) Attach(ctx context.Context, s Streams, p Process) error {
	ctx, leave, err := c.attached.begin(ctx)
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", c.id, err)
	}
	defer leave()
	ctx, over := context.WithCancelCause(ctx)
	a := &attachment{io: c, process: p, streams: s, over: over}
	a.start(ctx)
	<-ctx.Done()
	if s.Stdin != nil {
		_ = s.Stdin.Close() // ends a blocked Read; there is nobody to tell of an error
	}
	a.running.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, ErrSlowClient) || errors.Is(cause, ErrReleased) {
		return fmt.Errorf("attach to container %s: %w", c.id, cause)
	}
	return nil
}

// errSessionOver is the cause with which a session ends in the ordinary way.
var errSessionOver = errors.New("session is over")

// attachment is one client's session. Whoever sees its end calls over with the cause.
type attachment struct {
	io      *ContainerIO
	process Process
	streams Streams
	over    context.CancelCauseFunc
	running sync.WaitGroup
}

func (a *attachment) start(ctx context.Context) {
	var outputs sync.WaitGroup
	a.output(ctx, &outputs, a.io.stdout, a.streams.Stdout)
	a.output(ctx, &outputs, a.io.stderr, a.streams.Stderr)
	if a.streams.Stdin != nil && a.io.stdin != nil {
		a.running.Go(func() { a.input(ctx) })
	}
	if a.streams.Resize != nil && a.io.tty {
		a.running.Go(func() { forwardResize(ctx, a.streams.Resize, a.process) })
	}
	a.running.Go(func() {
		if a.streams.Stdout == nil && a.streams.Stderr == nil {
			select {
			case <-a.io.Done():
			case <-ctx.Done():
			}
		}
		outputs.Wait()
		a.over(errSessionOver)
	})
}

// output serves one stream that the client asked for.
func (a *attachment) output(ctx context.Context, outputs *sync.WaitGroup, from *outlet, to io.WriteCloser) {
	if to == nil {
		return
	}
	var c *client
	if from != nil {
		c = from.clients.add(to)
	}
	if c == nil { // a terminal's stderr, or a stream that has ended
		_ = to.Close()
		return
	}
	outputs.Go(func() {
		if err := from.clients.serve(ctx, c); err != nil {
			a.over(err)
		}
	})
}

// input copies the client's input and does what its end asks for.
func (a *attachment) input(ctx context.Context) {
	if err := a.io.stdin.copyFrom(ctx, a.streams.Stdin); err != nil && ctx.Err() == nil {
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
			klog.FromContext(ctx).Error(err, "Client's input does not reach the container", "container", a.io.id)
		}
		return // the process reads no more; the client may still want output
	}
	if !a.io.stdinOnce || a.io.tty {
		a.over(errSessionOver)
		return
	}
	// The client's end is the input's end, but ours and the container's are not.
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ErrClientGone) {
		return
	}
	if err := closeStdin(ctx, a.io.stdin, a.process); err != nil {
		klog.FromContext(ctx).Error(err, "Container's stdin was not closed", "container", a.io.id)
	}
}
