package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/userns-shim/userns-shim/pkg/stream/fifo"
)

// DefaultCaptureLimit is how many bytes of each stream a Capture keeps. It is
// containerd's limit, and fits twice into the largest gRPC message that kubelet takes.
const DefaultCaptureLimit = 16 << 20

// CaptureOptions describe a Capture. A Limit of 0 means DefaultCaptureLimit.
type CaptureOptions struct {
	Dir   string // where the FIFOs are made
	ID    string // the exec's id, unique in Dir
	Limit int    // bytes kept of each stream
}

// Capture collects the output of a process that was exec'd without a client. Bytes
// beyond the limit are read and thrown away, so the process never waits for a reader.
type Capture struct {
	set            fifo.Set
	pumps          *pumps
	stdout, stderr *buffer
}

// Captured is the output of a process. Truncated says that it wrote more than was kept.
type Captured struct {
	Stdout, Stderr []byte
	Truncated      bool
}

// OpenCapture makes the FIFOs and starts to read them. Close must be called.
func OpenCapture(ctx context.Context, opts CaptureOptions) (*Capture, error) {
	if opts.Limit == 0 {
		opts.Limit = DefaultCaptureLimit
	}
	set, err := fifo.NewSet(opts.Dir, opts.ID, false, false)
	if err != nil {
		return nil, err
	}
	if err := set.Create(); err != nil {
		return nil, errors.Join(err, set.Remove())
	}
	c := &Capture{set: set, stdout: &buffer{limit: opts.Limit}, stderr: &buffer{limit: opts.Limit}}
	if c.pumps, err = startPumps(ctx, set, c.stdout, c.stderr); err != nil {
		return nil, errors.Join(fmt.Errorf("capture output of exec %s: %w", opts.ID, err), set.Remove())
	}
	return c, nil
}

// Paths are the FIFOs to start the process with.
func (c *Capture) Paths() fifo.Set { return c.set }

// Drain waits, after the process has exited, until its output has ended. It returns
// ErrNotDrained when ctx ends first: then a child of the process holds the output
// open, and Output is what came so far.
func (c *Capture) Drain(ctx context.Context) error { return c.pumps.drain(ctx) }

// Output is what was captured so far.
func (c *Capture) Output() Captured {
	stdout, cutOut := c.stdout.bytes()
	stderr, cutErr := c.stderr.bytes()
	return Captured{Stdout: stdout, Stderr: stderr, Truncated: cutOut || cutErr}
}

// Close stops reading and removes the FIFOs.
func (c *Capture) Close(ctx context.Context) error {
	return errors.Join(c.pumps.stop(ctx), c.set.Remove())
}

// buffer is a sink that keeps the first limit bytes.
type buffer struct {
	limit int

	mu   sync.Mutex
	kept []byte
	cut  bool
}

func (b *buffer) write(_ context.Context, p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := b.limit - len(b.kept)
	if len(p) > room {
		p, b.cut = p[:room], true
	}
	b.kept = append(b.kept, p...)
}

func (b *buffer) end(context.Context) {}

// bytes returns what was kept. Later writes append, so the slice stays valid.
func (b *buffer) bytes() ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept[:len(b.kept):len(b.kept)], b.cut
}
