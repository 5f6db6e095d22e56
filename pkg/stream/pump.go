package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/stream/fifo"
)

// readBytes is how much is read from a FIFO at once; a pipe holds 64 KiB.
const readBytes = 32 << 10

// sink takes what one FIFO delivers. Both methods are called by one goroutine.
type sink interface {
	// write takes p, which is the sink's only until write returns.
	write(ctx context.Context, p []byte)
	// end is called once, when the stream has ended or this process stops to read it.
	end(ctx context.Context)
}

// pumps moves the output of one process from its FIFOs to sinks, one goroutine each.
type pumps struct {
	readers []*fifo.Reader
	done    chan struct{}
}

// startPumps opens the output FIFOs of set and reads them until they end or stop is
// called. Cancellation of ctx does not stop the pumps; it carries their logger. A nil
// sink is allowed where set has no such FIFO.
func startPumps(ctx context.Context, set fifo.Set, stdout, stderr sink) (*pumps, error) {
	ctx = context.WithoutCancel(ctx)
	p := &pumps{done: make(chan struct{})}
	var sinks []sink
	for _, out := range []struct {
		path string
		to   sink
	}{{set.Stdout, stdout}, {set.Stderr, stderr}} {
		if out.path == "" {
			continue
		}
		r, err := fifo.OpenReader(out.path)
		if err != nil {
			return nil, errors.Join(err, p.closeReaders())
		}
		p.readers = append(p.readers, r)
		sinks = append(sinks, out.to)
	}
	var running sync.WaitGroup
	for i, r := range p.readers {
		running.Go(func() { pump(ctx, r, sinks[i]) })
	}
	go func() {
		running.Wait()
		close(p.done)
	}()
	return p, nil
}

func pump(ctx context.Context, r *fifo.Reader, to sink) {
	buf := make([]byte, readBytes)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			to.write(ctx, buf[:n])
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
			klog.FromContext(ctx).Error(err, "Output of a process is lost")
		}
		to.end(ctx)
		return
	}
}

// drain waits until all output of an exited process was taken. It returns
// ErrNotDrained when ctx ends first.
func (p *pumps) drain(ctx context.Context) error {
	for _, r := range p.readers {
		r.Finish()
	}
	return p.wait(ctx)
}

// stop ends the pumps; what they have not read stays in the FIFOs.
func (p *pumps) stop(ctx context.Context) error {
	return errors.Join(p.closeReaders(), p.wait(ctx))
}

func (p *pumps) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotDrained, context.Cause(ctx))
	}
}

func (p *pumps) closeReaders() error {
	var errs []error
	for _, r := range p.readers {
		if err := r.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
