package ns

import (
	"context"
	"encoding/binary"
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

// child is a clone of this process that holds fresh namespaces and sleeps.
//
// It is never executed: executing a Go binary of some ten MiB costs more than all the rest.
// Nor is it ptraced: Yama's ptrace_scope 3 forbids that even to root. Instead it stays inside
// runChild, which makes raw system calls and nothing else.
type child struct {
	pid   int
	pidfd int
}

// childPlan is all that the child needs, prepared before the clone: afterwards it can neither
// allocate nor call into the Go runtime, whose other threads do not exist in it.
type childPlan struct {
	parent   uintptr // the process to die with
	statusFd uintptr // the only descriptor that the child keeps
	setOwner uintptr // 1: become owner before the first namespace
	owner    uintptr // effective uid that creates, and so owns, the user namespace
	limits   [len(accounted)]struct {
		resource uintptr
		max      unix.Rlimit // unlimited, which needs CAP_SYS_RESOURCE
		hard     unix.Rlimit // the best that can be had without
	}
	capHeader unix.CapUserHeader
	caps      [2]unix.CapUserData
	unshare   [4]uintptr // CLONE_NEW* in the order of creation; 0 ends
	status    childStatus
	allSigs   uint64
	oldSigs   uint64
	clone     cloneArgs
	pidfd     int32
}

// cloneArgs is the kernel's struct clone_args in its first version (5.3).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
}

// childStatus is what the child writes once: where it stands and why it got no further.
type childStatus struct {
	Step  uint32 // 0: all namespaces exist
	Errno uint32
}

// The steps of the child at which it can fail; stepUnshare+i is the i-th namespace.
const (
	stepReady uint32 = iota
	stepPdeathsig
	stepOwner
	stepCaps
	stepUnshare
)

// startChild clones the child and waits until its namespaces exist. It must run on a thread that
// stays locked until the child is gone: the child dies with the thread that cloned it.
func startChild(ctx context.Context, user *IDMap, flags []uintptr) (_ *child, err error) {
	r, w, err := os.Pipe() // both ends are CLOEXEC
	if err != nil {
		return nil, fmt.Errorf("status pipe of the namespace child: %w", err)
	}
	defer r.Close()
	plan, err := newChildPlan(user, flags)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	plan.statusFd = w.Fd()
	pid, errno := cloneChild(plan)
	pidfd := int(plan.pidfd)
	runtime.KeepAlive(plan)
	if err := w.Close(); err != nil && errno == 0 {
		return nil, errors.Join(err, (&child{int(pid), pidfd}).stop())
	}
	if errno != 0 {
		return nil, fmt.Errorf("clone the namespace child: %w", errno)
	}
	c := &child{pid: int(pid), pidfd: pidfd}
	if err := c.await(ctx, r, flags); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

func newChildPlan(user *IDMap, flags []uintptr) (*childPlan, error) {
	p := &childPlan{parent: uintptr(os.Getpid()), allSigs: math.MaxUint64, pidfd: -1}
	copy(p.unshare[:], flags)
	for i, a := range accounted {
		l := &p.limits[i]
		l.resource = uintptr(a.resource)
		l.max = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		var now unix.Rlimit
		if err := unix.Getrlimit(a.resource, &now); err != nil {
			return nil, fmt.Errorf("get rlimit %s: %w", a.name, err)
		}
		l.hard = unix.Rlimit{Cur: now.Max, Max: now.Max}
	}
	if user != nil {
		p.setOwner, p.owner = 1, uintptr(user.HostID)
		p.capHeader.Version = unix.LINUX_CAPABILITY_VERSION_3
		if err := unix.Capget(&p.capHeader, &p.caps[0]); err != nil {
			return nil, fmt.Errorf("get capabilities: %w", err)
		}
		for i := range p.caps {
			p.caps[i].Effective = p.caps[i].Permitted
		}
	}
	// No exit signal: the parent waits by pidfd, and nobody's wait for "any child" sees it.
	p.clone = cloneArgs{
		flags: unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND,
		pidfd: uint64(uintptr(unsafe.Pointer(&p.pidfd))),
	}
	return p, nil
}

// cloneChild clones the child, which never returns from here.
//
// What makes this sound in a Go program:
//   - The child has a copy of the address space and one thread, whose stack is a copy of this
//     goroutine's. nosplit all the way down means that nobody looks at the stack's bound, grows
//     it, or yields to a scheduler that is not there; norace, that no access calls the detector.
//   - All signals are blocked around the clone and the child starts with default handlers, so
//     no handler of the Go runtime (preemption, profiling) can run in it, and one sent to the
//     process group does not end it.
//   - Nothing is allocated; pointers go into p, which is heap memory that does not move.
//   - syscall.ForkLock is not needed: it keeps descriptors that are not yet CLOEXEC from an
//     exec, and the child executes nothing. The copies of descriptors that it received are
//     closed by its first call.
//   - vfork semantics (CLONE_VM|CLONE_VFORK) would save the copy of the page tables but suspend
//     this thread outside the scheduler's knowledge, and the next garbage collection with it.
//
//go:nosplit
//go:norace
//go:noinline
func cloneChild(p *childPlan) (pid uintptr, errno syscall.Errno) {
	const sigsetSize = 8
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&p.allSigs)), uintptr(unsafe.Pointer(&p.oldSigs)), sigsetSize, 0, 0)
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE3,
		uintptr(unsafe.Pointer(&p.clone)), unsafe.Sizeof(p.clone), 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		runChild(p)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&p.oldSigs)), 0, sigsetSize, 0, 0)
	return pid, errno
}

// runChild is the child's whole life. Its credentials and limits are changed here and not on a
// thread of the parent, so the parent has nothing to restore: no thread of the daemon ever
// carries a pod's ids, its rlimits stay as they are, and it stays dumpable (a change of the
// effective uid clears that for the whole address space).
//
//go:nosplit
//go:norace
//go:noinline
func runChild(p *childPlan) {
	if p.statusFd > 0 {
		syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, 0, p.statusFd-1, 0, 0, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, p.statusFd+1, math.MaxUint32, 0, 0, 0, 0)
	setUpChild(p)
	syscall.RawSyscall6(unix.SYS_WRITE, p.statusFd,
		uintptr(unsafe.Pointer(&p.status)), unsafe.Sizeof(p.status), 0, 0, 0)
	for p.status.Step == stepReady {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0) // until SIGKILL
	}
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, 0)
	}
}

// setUpChild leaves in p.status how far it came.
//
//go:nosplit
//go:norace
//go:noinline
func setUpChild(p *childPlan) {
	var errno syscall.Errno
	for i := range p.limits {
		l := &p.limits[i]
		_, _, errno = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, l.resource, uintptr(unsafe.Pointer(&l.max)), 0, 0, 0)
		if errno != 0 {
			syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, l.resource, uintptr(unsafe.Pointer(&l.hard)), 0, 0, 0)
		}
	}
	if p.setOwner == 1 {
		// The real and saved uid stay root's: no process of the pod may signal this one, and
		// RLIMIT_NPROC of a process whose real uid is root does not cap the namespace.
		_, _, errno = syscall.RawSyscall6(unix.SYS_SETRESUID, ^uintptr(0), p.owner, ^uintptr(0), 0, 0, 0)
		if errno != 0 {
			p.status = childStatus{stepOwner, uint32(errno)}
			return
		}
		// Leaving uid 0 cleared the effective capabilities.
		_, _, errno = syscall.RawSyscall6(unix.SYS_CAPSET,
			uintptr(unsafe.Pointer(&p.capHeader)), uintptr(unsafe.Pointer(&p.caps)), 0, 0, 0, 0)
		if errno != 0 {
			p.status = childStatus{stepCaps, uint32(errno)}
			return
		}
	}
	// After the change of credentials, which resets it. A parent that died before is noticed by
	// the parent's id.
	_, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	ppid, _, _ := syscall.RawSyscall6(unix.SYS_GETPPID, 0, 0, 0, 0, 0, 0)
	if errno != 0 || ppid != p.parent {
		p.status = childStatus{stepPdeathsig, uint32(errno)}
		return
	}
	// One by one: an error then says which kind of namespace met its limit.
	for i := 0; i < len(p.unshare) && p.unshare[i] != 0; i++ {
		_, _, errno = syscall.RawSyscall6(unix.SYS_UNSHARE, p.unshare[i], 0, 0, 0, 0, 0)
		if errno != 0 {
			p.status = childStatus{stepUnshare + uint32(i), uint32(errno)}
			return
		}
	}
}

// await reads the child's status until ctx ends.
func (c *child) await(ctx context.Context, r *os.File, flags []uintptr) error {
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var buf [unsafe.Sizeof(childStatus{})]byte
	if _, err := io.ReadFull(r, buf[:]); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("wait for the namespace child: %w", err)
	}
	s := childStatus{binary.NativeEndian.Uint32(buf[:4]), binary.NativeEndian.Uint32(buf[4:])}
	switch errno := syscall.Errno(s.Errno); {
	case s.Step == stepReady:
		return nil
	case s.Step == stepOwner:
		return fmt.Errorf("namespace child: set effective uid: %w", errno)
	case s.Step == stepCaps:
		return fmt.Errorf("namespace child: set capabilities: %w", errno)
	case s.Step >= stepUnshare && int(s.Step-stepUnshare) < len(flags):
		return unshareError(flags[s.Step-stepUnshare], errno)
	default:
		return fmt.Errorf("namespace child: stopped at step %d: %w", s.Step, errno)
	}
}

// stop kills the child and reaps it.
func (c *child) stop() error {
	defer unix.Close(c.pidfd)
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
