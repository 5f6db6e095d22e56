package stream

import (
	"context"
	"io"
	"sync"
	"time"
)

// lastPieces bounds how long a finished session waits for a client to take the last
// output, which is at most one piece of each stream.
const lastPieces = 10 * time.Second

// rawStreams are the streams that cri-streaming passes. Reads and writes of them end
// with their connection only, which is closed after the session.
type rawStreams struct {
	in        io.Reader
	out, errs io.WriteCloser
	tty       bool
	resize    <-chan Size
}

// relay puts pipes between a client's raw streams and a session, so that the session
// can close its end of each at any time.
type relay struct {
	gone    context.CancelCauseFunc
	streams Streams
	pipes   []io.Closer    // the session's ends
	outputs sync.WaitGroup // copiers to the client
	running sync.WaitGroup // all copiers
}

// startRelay starts copying for a session, whose context it returns: that ends when
// ctx does, or when output cannot be written. Then the session's ends close.
func startRelay(ctx context.Context, want wanted, raw rawStreams) (context.Context, *relay) {
	r := &relay{streams: Streams{TTY: raw.tty, Resize: raw.resize}}
	ctx, r.gone = context.WithCancelCause(ctx)
	if want.stdin && raw.in != nil {
		r.streams.Stdin = r.input(raw.in)
	}
	if want.stdout && raw.out != nil {
		r.streams.Stdout = r.output(raw.out)
	}
	if want.stderr && raw.errs != nil && !raw.tty {
		r.streams.Stderr = r.output(raw.errs)
	}
	context.AfterFunc(ctx, r.closePipes)
	return ctx, r
}

func (r *relay) input(from io.Reader) io.ReadCloser {
	pr, pw := io.Pipe()
	r.pipes = append(r.pipes, pr)
	r.running.Go(func() {
		_, err := io.Copy(pw, from)
		_ = pw.CloseWithError(err) // nil is io.EOF
		// Input that the process does not want is read all the same: unread, it would
		// keep the connection's other streams, and its end, from being seen.
		_, _ = io.Copy(io.Discard, from)
	})
	return pr
}

func (r *relay) output(to io.WriteCloser) io.WriteCloser {
	pr, pw := io.Pipe()
	r.pipes = append(r.pipes, pw)
	r.outputs.Add(1)
	r.running.Go(func() {
		defer r.outputs.Done()
		if _, err := io.Copy(to, pr); err != nil {
			r.gone(ErrClientGone)
		}
		_ = pr.Close()
		_ = to.Close() // tells the client that no output follows
	})
	return pw
}

func (r *relay) closePipes() {
	for _, p := range r.pipes {
		_ = p.Close()
	}
}

// finish ends the session's side and waits until the client has the output, is gone,
// or has had lastPieces.
func (r *relay) finish(ctx context.Context) {
	r.closePipes()
	taken := make(chan struct{})
	r.running.Go(func() {
		r.outputs.Wait()
		close(taken)
	})
	timer := time.NewTimer(lastPieces)
	defer timer.Stop()
	select {
	case <-taken:
	case <-ctx.Done():
	case <-timer.C:
	}
	r.gone(errSessionOver)
}
