package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// witness sees a process end beside containerd, which forgets tasks that ended while it was down: when it
// starts, it deletes those that have no process left, together with their exit codes. The kernel
// keeps the exit status for holders of a pidfd, from Linux 6.15.
type witness struct {
	pidfd *os.File
}

// newWitness opens a pidfd of a running process.
func newWitness(pid uint32) (*witness, error) {
	// Non-blocking, so that the runtime can poll it.
	fd, err := unix.PidfdOpen(int(pid), unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open pidfd of process %d: %w", pid, err)
	}
	return &witness{pidfd: os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d", pid))}, nil
}

// close releases the pidfd. A nil witness is fine.
func (w *witness) close() {
	if w != nil {
		_ = w.pidfd.Close()
	}
}

// errNoWitness says that the kernel does not tell how a process ended.
var errNoWitness = errors.New("nobody saw the process end")

// exit waits until the process has ended and was reaped, and returns how it did.
func (w *witness) exit(ctx context.Context) (container.Exit, error) {
	for {
		info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		err := w.control(func(fd int) error { return unix.IoctlPidfdInfo(fd, &info) })
		if err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
			return container.Exit{Code: exitCode(unix.WaitStatus(info.Exit_code)), At: time.Now()}, nil
		}
		if err != nil {
			return container.Exit{}, fmt.Errorf("%w: %w", errNoWitness, err)
		}
		select {
		case <-ctx.Done():
			return container.Exit{}, fmt.Errorf("%w: %w", errNoWitness, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (w *witness) control(f func(fd int) error) error {
	raw, err := w.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// exitCode is the code that runc's shim reports: 128 and the signal's number for a process that was killed.
func exitCode(status unix.WaitStatus) uint32 {
	if status.Signaled() {
		return uint32(128 + status.Signal())
	}
	return uint32(status.ExitStatus())
}
