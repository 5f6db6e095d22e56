package stream

import (
	"context"
	"errors"
	"io"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
)

var (
	// ErrSlowClient says that an attached client took its output so slowly that it
	// was cut off, because the container and its log must not wait for it.
	ErrSlowClient = errors.New("client does not take its output")
	// ErrClientGone is the cause with which a stream's context ends when the client
	// closes its connection.
	ErrClientGone = errors.New("client has gone")
	// ErrReleased is the cause with which sessions end when userns-shim itself lets go of
	// a container's stdio, or stops its server: the container is not to notice.
	ErrReleased = errors.New("userns-shim ends the session")
	// ErrNotDrained says that output may still come, because a process (one that was
	// left in the background, or the shim) holds it open.
	ErrNotDrained = errors.New("output is still held open")
)

// Process is the container-side process of a stream.
type Process interface {
	// CloseStdin makes the shim let go of the process's stdin, which it holds open too.
	CloseStdin(ctx context.Context) error
	// Resize sets the size of the process's terminal.
	Resize(ctx context.Context, width, height uint32) error
}

// Size is the size of a client's terminal, in characters.
type Size = remotecommand.TerminalSize

// Streams are the client's side of an exec or attach. What the client did not ask for
// is nil. Close makes a blocked Read or Write of that stream return.
type Streams struct {
	Stdin          io.ReadCloser
	Stdout, Stderr io.WriteCloser
	TTY            bool
	Resize         <-chan Size
}

// forwardResize sets the terminal's size until ctx ends or the client's channel is
// closed. A size with a zero is no size.
func forwardResize(ctx context.Context, sizes <-chan Size, p Process) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			if size.Width == 0 || size.Height == 0 {
				continue
			}
			err := p.Resize(ctx, uint32(size.Width), uint32(size.Height))
			if err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Terminal was not resized")
			}
		}
	}
}
