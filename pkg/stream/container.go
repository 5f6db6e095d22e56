package stream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/stream/crilog"
	"github.com/userns-shim/userns-shim/pkg/stream/fifo"
)

// Options describe the stdio of a container.
type Options struct {
	ID        string // the container's id, unique in Dir
	Dir       string // where the FIFOs are made
	Stdin     bool   // the container has a stdin
	StdinOnce bool   // its stdin ends with the first attached client's
	TTY       bool

	Log crilog.Options // an empty Path: output is read and thrown away

	// AttachStall is how long a full client may hold the container back before it is
	// cut off. 0 means 5 seconds.
	AttachStall time.Duration
}

// ContainerIO is the stdio of one container: it writes the log, and serves attached
// clients.
type ContainerIO struct {
	id        string
	set       fifo.Set
	tty       bool
	stdinOnce bool
	stall     time.Duration

	log            *crilog.File // nil: output is thrown away
	stdout, stderr *outlet      // stderr is nil with a terminal
	stdin          *stdinPipe   // nil without a stdin
	pumps          *pumps

	attached sessions
}

// Open makes the FIFOs, opens the log and starts to copy output. Where the FIFOs
// exist, because an earlier userns-shim made them, it goes on from where that one
// stopped. Open comes before the container's task is created. Cancellation of ctx
// does not stop the copying: Close must be called.
func Open(ctx context.Context, opts Options) (*ContainerIO, error) {
	set, err := fifo.NewSet(opts.Dir, opts.ID, opts.Stdin, opts.TTY)
	if err != nil {
		return nil, err
	}
	if opts.AttachStall == 0 {
		opts.AttachStall = defaultAttachStall
	}
	c := &ContainerIO{id: opts.ID, set: set, tty: opts.TTY, stdinOnce: opts.StdinOnce, stall: opts.AttachStall}
	if opts.Log.Path != "" {
		if c.log, err = crilog.Open(opts.Log); err != nil {
			return nil, err
		}
	}
	c.stdout = c.newOutlet(crilog.Stdout, opts.AttachStall)
	if !opts.TTY {
		c.stderr = c.newOutlet(crilog.Stderr, opts.AttachStall)
	}
	if opts.Stdin {
		c.stdin = newStdinPipe(set.Stdin)
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("stdio of container %s: %w", opts.ID, err), c.closeLog(ctx))
	}
	return c, nil
}

func (c *ContainerIO) start(ctx context.Context) error {
	if err := c.set.Create(); err != nil {
		return err
	}
	ctx = klog.NewContext(ctx, klog.LoggerWithValues(klog.FromContext(ctx), "container", c.id))
	var err error
	if c.stderr == nil {
		c.pumps, err = startPumps(ctx, c.set, c.stdout, nil)
	} else {
		c.pumps, err = startPumps(ctx, c.set, c.stdout, c.stderr)
	}
	return err
}

// Paths are the FIFOs to create the task with.
func (c *ContainerIO) Paths() fifo.Set { return c.set }

// Reopen goes on in a new log file, after kubelet renamed the old one. No line is
// lost or written twice. Without a log it does nothing.
func (c *ContainerIO) Reopen(ctx context.Context) error {
	if c.log == nil {
		return nil
	}
	return c.log.Reopen(ctx)
}

// Drain waits, after the container has exited, until its output is in the log. It
// returns ErrNotDrained when ctx ends first, which must have a bound: a process that
// outlives the container can hold its output open.
func (c *ContainerIO) Drain(ctx context.Context) error {
	if err := c.pumps.drain(ctx); err != nil {
		return fmt.Errorf("drain output of container %s: %w", c.id, err)
	}
	return nil
}

// Done is closed when all output has ended and is in the log.
func (c *ContainerIO) Done() <-chan struct{} { return c.pumps.done }

// Close ends attached sessions, once they have the rest of an output that has ended,
// stops copying, and leaves the FIFOs: the container may go on, and a later Open takes
// over. An unfinished line goes into the
// log as a partial record. It returns an error when ctx ends before a write to the
// log's disk, or a client, lets go.
func (c *ContainerIO) Close(ctx context.Context) error {
	c.attached.refuse(ErrReleased)
	c.letFinish(ctx)
	c.attached.end(ErrReleased)
	if c.log != nil {
		c.log.GiveUp()
	}
	err := errors.Join(c.pumps.stop(ctx), c.closeLog(ctx), c.attached.wait(ctx))
	if c.stdin != nil {
		err = errors.Join(err, c.stdin.close(ctx))
	}
	if err != nil {
		return fmt.Errorf("close stdio of container %s: %w", c.id, err)
	}
	return nil
}

// letFinish gives clients the stall time to take the last of an output that has ended.
func (c *ContainerIO) letFinish(ctx context.Context) {
	select {
	case <-c.Done():
	default:
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.stall)
	defer cancel()
	_ = c.attached.wait(ctx) // those that are late are ended next
}

func (c *ContainerIO) closeLog(ctx context.Context) error {
	if c.log == nil {
		return nil
	}
	return c.log.Close(ctx)
}

// RemoveFIFOs removes every FIFO in a container's directory: its own, and those of execs that ran when the daemon
// was killed, of which nobody else knows. A directory that is gone is no error.
func RemoveFIFOs(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list FIFOs: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if entry.Type() != fs.ModeNamedPipe {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove FIFO: %w", err))
		}
	}
	return errors.Join(errs...)
}
