package ns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone says that a task has ended, or that its number belongs to another process by now.
var ErrGone = errors.New("process is gone")

// Task is the first process of a container. The kernel gives its number to others after its end,
// so the number alone names nobody: ID, which is part of the path of the container's cgroup and
// of no other, tells them apart.
type Task struct {
	PID int
	ID  string
}

// PinPID pins the PID namespace of a task at path, which must not exist. The pin outlives the
// task, but a namespace whose process 1 has ended takes in no process any more.
func PinPID(task Task, path string) error {
	p, err := openTask(task)
	if err != nil {
		return fmt.Errorf("pin PID namespace: %w", err)
	}
	defer p.Close()
	pidNS, err := p.openNS()
	if err != nil {
		return fmt.Errorf("pin PID namespace: %w", err)
	}
	defer pidNS.Close()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("pin directory: %w", err)
	}
	pin, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o444)
	if err != nil {
		return fmt.Errorf("pin file of the PID namespace: %w", err)
	}
	err = pin.Close()
	if err == nil {
		err = unix.Mount("/proc/self/fd/"+strconv.Itoa(int(pidNS.Fd())), path, "", unix.MS_BIND, "")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("pin PID namespace of process %d at %s: %w", task.PID, path, err), unpin(path))
	}
	return nil
}

// UnpinPID takes the pin away. One that is not there is done.
func UnpinPID(path string) error { return unpin(path) }

// CheckPID reports whether the task lives and its PID namespace is the one pinned at path: nil, or
// an error that wraps ErrGone, ErrNotPinned or ErrForeign where the question could be answered.
func CheckPID(task Task, path string) error {
	p, err := openTask(task)
	if err != nil {
		return err
	}
	defer p.Close()
	own, err := p.openNS()
	if err != nil {
		return err
	}
	defer own.Close()
	pinned, err := openNS(path, unix.CLONE_NEWPID)
	if err != nil {
		return err
	}
	defer pinned.Close()
	got, err := inodeOf(int(own.Fd()))
	if err != nil {
		return fmt.Errorf("check PID namespace of process %d: %w", task.PID, err)
	}
	want, err := inodeOf(int(pinned.Fd()))
	if err != nil {
		return fmt.Errorf("check PID namespace %s: %w", path, err)
	}
	if got != want {
		return fmt.Errorf("%w: PID namespace %s is not that of process %d", ErrForeign, path, task.PID)
	}
	return nil
}

// AwaitExit returns nil when the task has ended, at once when it ended before, and an error only
// when ctx ends or it could not wait.
func AwaitExit(ctx context.Context, task Task) error {
	p, err := openTask(task)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("await exit: %w", err)
	}
	defer p.Close()
	stop := context.AfterFunc(ctx, func() { _ = p.fd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return fmt.Errorf("await exit of process %d: %w", task.PID, err)
	}
	var pollErr error
	err = conn.Read(func(uintptr) bool {
		var ended bool
		ended, pollErr = p.ended()
		return ended || pollErr != nil
	})
	if ctx.Err() != nil {
		return fmt.Errorf("await exit of process %d: %w", task.PID, context.Cause(ctx))
	}
	if err := errors.Join(err, pollErr); err != nil {
		return fmt.Errorf("await exit of process %d: %w", task.PID, err)
	}
	return nil
}

// taskProcess is a task held by its pidfd. While that says that the process lives, everything below
// /proc/<pid> that was read since it was opened is the process's.
type taskProcess struct {
	Task
	fd *os.File
	// raw is the number of fd: asking os.File for it would take it out of the poller.
	raw int
}

func openTask(task Task) (_ *taskProcess, err error) {
	// Non-blocking, so that os.File puts it under the runtime's poller and no thread waits.
	raw, err := unix.PidfdOpen(task.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || task.PID <= 0 {
		return nil, fmt.Errorf("%w: no process %d", ErrGone, task.PID)
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", task.PID, err)
	}
	p := &taskProcess{Task: task, fd: os.NewFile(uintptr(raw), "pidfd "+strconv.Itoa(task.PID)), raw: raw}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	cgroups, err := os.ReadFile(p.proc("cgroup"))
	if err != nil {
		return nil, p.readError(err)
	}
	if err := p.alive(); err != nil {
		return nil, err
	}
	if task.ID == "" || !strings.Contains(string(cgroups), task.ID) {
		return nil, fmt.Errorf("%w: process %d is not of container %s", ErrGone, task.PID, task.ID)
	}
	return p, nil
}

func (p *taskProcess) Close() { p.fd.Close() }

func (p *taskProcess) proc(name string) string {
	return "/proc/" + strconv.Itoa(p.PID) + "/" + name
}

// openNS opens the process's PID namespace.
func (p *taskProcess) openNS() (*os.File, error) {
	f, err := openNS(p.proc("ns/pid"), unix.CLONE_NEWPID)
	if err != nil {
		return nil, p.readError(err)
	}
	if err := p.alive(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readError is ErrGone where what was to be read ended with the process.
func (p *taskProcess) readError(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

func (p *taskProcess) alive() error {
	ended, err := p.ended()
	if err != nil {
		return err
	}
	if ended {
		return fmt.Errorf("%w: process %d has ended", ErrGone, p.PID)
	}
	return nil
}

// ended says whether the process is a zombie or gone: its pidfd is readable then.
func (p *taskProcess) ended() (bool, error) {
	fds := []unix.PollFd{{Fd: int32(p.raw), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("poll process %d: %w", p.PID, err)
		}
		return n > 0, nil
	}
}
