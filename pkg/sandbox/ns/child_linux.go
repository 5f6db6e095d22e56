package ns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// child is a process that performs system calls for this one: the ones that change what a
// thread of this process must not change. It has its own credentials, limits and namespaces, and
// /proc/<pid> to reach them by.
//
// It is a clone of this process that shares its memory and never leaves the loop in clone_*.s:
// perform the calls listed in shared until one fails, answer, wait for a message. Alternatives
// that were tried or ruled out:
//   - Executing a program: to start a Go binary costs several times as much as all the rest.
//   - A clone with a copy of the memory (fork) costs time for every page that this process has
//     ever written, 4 ms for 100 MiB, and as much again afterwards, when each page faults.
//   - vfork suspends the calling thread without the knowledge of Go's scheduler, and with it the
//     next garbage collection.
//   - Go code in the child: the race detector hooks into it, whatever the pragmas.
//   - ptrace: Yama's ptrace_scope 3 forbids it even to root.
//
// The child is none of the threads that the Go runtime knows of. It uses no stack, so it cannot
// disturb the one that it was cloned on; it starts with default signal handlers and its first
// call blocks all signals, so no handler of the runtime runs in it; memory other than shared it
// touches through the arguments of its calls alone. It has copies of this process's descriptors
// and closes them unasked, by its first calls: it would otherwise hold the locks of a process that
// is killed just then, and its own copy of the socket's other end would keep it waiting for good.
// syscall.ForkLock guards against an exec, which is not coming.
type child struct {
	pid    int
	pidfd  int
	socket *os.File // wakes the child; its end closes when the child dies, and the other way round
	shared *shared
	keep   any // memory that the calls refer to
}

// shared is the memory that this process and the child use in turns. It is heap memory, which
// does not move, and is kept alive until the child has been reaped.
type shared struct {
	clone   cloneArgs
	pidfd   int32
	message byte    // what is read and written; its value means nothing
	socket  uintptr // the child's end
	signals uint64  // that the child blocks
	n       uintptr // how many of calls to perform
	calls   [24]call
}

// cloneArgs is the kernel's struct clone_args in its first version (5.3).
type cloneArgs struct {
	flags, pidfd uint64
	_            [6]uint64 // child_tid, parent_tid, exit_signal, stack, stack_size, tls
}

// call is a system call and, once performed, its result: a small negative number is an errno.
type call struct {
	nr   uintptr
	args [6]uintptr
	ret  uintptr
}

// errno returns the error that the call ended with, or 0.
func (c call) errno() syscall.Errno {
	const maxErrno = 4095
	if e := -c.ret; e-1 < maxErrno {
		return syscall.Errno(e)
	}
	return 0
}

// rawClone is clone3(2) with s.clone. Only the parent returns from it.
func rawClone(s *shared) (pid, errno uintptr)

// startChild clones the child. It must run on a thread that stays locked until the child is
// gone: the child can be told to die with that thread.
func startChild() (*child, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair with the namespace child: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // so that it honours deadlines
		return nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	s := &shared{pidfd: -1, message: 1, socket: uintptr(fds[1]), signals: math.MaxUint64}
	first := s.seclude()
	s.n = uintptr(copy(s.calls[:], first))
	// No exit signal: this process waits by pidfd, and nobody's wait for "any child" sees it.
	s.clone = cloneArgs{
		flags: unix.CLONE_VM | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND,
		pidfd: uint64(uintptr(unsafe.Pointer(&s.pidfd))),
	}
	pid, errno := rawClone(s)
	unix.Close(fds[1])
	if errno != 0 {
		unix.Close(fds[0])
		return nil, fmt.Errorf("clone the namespace child: %w", syscall.Errno(errno))
	}
	socket := os.NewFile(uintptr(fds[0]), "namespace child")
	c := &child{pid: int(pid), pidfd: int(s.pidfd), socket: socket, shared: s}
	if _, errno, err := c.await(first); errno != 0 || err != nil {
		return nil, errors.Join(fmt.Errorf("block signals and close descriptors of the namespace child: %w", cmp.Or(err, error(errno))), c.stop())
	}
	return c, nil
}

// seclude are the calls that the child begins with.
func (s *shared) seclude() []call {
	calls := []call{{nr: unix.SYS_RT_SIGPROCMASK, args: [6]uintptr{unix.SIG_SETMASK, address(&s.signals), 0, unsafe.Sizeof(s.signals)}}}
	if s.socket > 0 {
		calls = append(calls, call{nr: unix.SYS_CLOSE_RANGE, args: [6]uintptr{0, s.socket - 1}})
	}
	return append(calls, call{nr: unix.SYS_CLOSE_RANGE, args: [6]uintptr{s.socket + 1, math.MaxUint32}})
}

// run has the child perform calls until one fails, and returns how many succeeded with the error
// of the one that did not. What their arguments point to must be reachable from c.keep. After
// err, which says that the child did not answer, the child is fit for stop only.
func (c *child) run(ctx context.Context, calls []call) (done int, errno syscall.Errno, err error) {
	if len(calls) > len(c.shared.calls) {
		return 0, 0, fmt.Errorf("%d system calls for the namespace child, which takes %d", len(calls), len(c.shared.calls))
	}
	c.shared.n = uintptr(copy(c.shared.calls[:], calls))
	stop := context.AfterFunc(ctx, func() { _ = c.socket.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err = c.socket.Write([]byte{0}); err == nil {
		done, errno, err = c.await(calls)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, 0, fmt.Errorf("wait for the namespace child: %w", err)
	}
	return done, errno, nil
}

// await is the second half of run: it waits for the child's answer and reads the results into calls.
func (c *child) await(calls []call) (done int, errno syscall.Errno, err error) {
	if _, err := io.ReadFull(c.socket, []byte{0}); err != nil {
		return 0, 0, err
	}
	copy(calls, c.shared.calls[:])
	for ; done < len(calls); done++ {
		if errno := calls[done].errno(); errno != 0 {
			return done, errno, nil
		}
	}
	return done, 0, nil
}

// stop kills the child and reaps it.
func (c *child) stop() error {
	defer runtime.KeepAlive(c)
	defer unix.Close(c.pidfd)
	defer c.socket.Close()
	if err := unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill namespace child %d: %w", c.pid, err)
	}
	for {
		err := unix.Waitid(unix.P_PIDFD, c.pidfd, nil, unix.WEXITED|unix.WALL, nil)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for namespace child %d: %w", c.pid, err)
		}
	}
}

// proc returns the path of a file in the child's /proc directory. Its pid cannot be another
// process's before stop has reaped it.
func (c *child) proc(name string) string {
	return "/proc/" + strconv.Itoa(c.pid) + "/" + name
}
