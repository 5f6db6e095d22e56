package labnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// termGrace is how long Stop waits after SIGTERM before it uses SIGKILL.
const termGrace = 10 * time.Second

// command describes a daemon to start.
type command struct {
	name string // for messages
	path string
	args []string
	env  []string // added to the caller's environment
	log  string   // file that stdout and stderr are appended to
}

// process is a running daemon. Its process group is its own, so Ctrl-C at a terminal does not reach it,
// and it is killed when the world's thread ends (or, without a world, stays until stopped).
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

func startProcess(world *World, c command) (*process, error) {
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", c.name, err)
	}
	defer log.Close()
	cmd := exec.Command(c.path, c.args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if world != nil {
		cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	}
	if err := world.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	p := &process{name: c.name, log: c.log, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		// How it ended is of no interest: a daemon that ends before Stop is found by running.
		_ = cmd.Wait()
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// pidOrZero is 0 for a daemon that was never started.
func (p *process) pidOrZero() int {
	if p == nil {
		return 0
	}
	return p.pid()
}

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop asks with SIGTERM and insists with SIGKILL. It is no error when the process has
// ended already or was never started.
func (p *process) stop(ctx context.Context) error {
	if p == nil {
		return nil
	}
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(termGrace):
	case <-ctx.Done():
	}
	if err := p.kill(); err != nil {
		return err
	}
	return fmt.Errorf("stop %s: pid %d did not end on SIGTERM within %s; its log is %s", p.name, p.pid(), termGrace, p.log)
}

// kill sends SIGKILL and waits.
func (p *process) kill() error {
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

func (p *process) signal(sig unix.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// await polls ready until it returns nil, the process ends, or ctx does. The error carries the end of the log.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended (%s) before it was ready: %s", p.name, p.cmd.ProcessState, LogTail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("await %s: %w: %w: %s", p.name, context.Cause(ctx), err, LogTail(p.log))
		case <-tick.C:
		}
	}
}

// LogTail is the last few kilobytes of a log, for a message.
func LogTail(path string) string { return LogTailFrom(path, 0) }

// LogTailFrom is the same of what a log has from an offset on.
func LogTailFrom(path string, from int64) string {
	const limit = 6000
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	start := max(int(min(from, int64(len(text)))), len(text)-limit)
	return string(text[start:])
}
