package ns

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// step is a call of the child with the words for its failure.
type step struct {
	call
	what string
	flag uintptr // of the namespace that it creates
}

// setup is what the child has to do for a pod, and the memory that its calls refer to.
type setup struct {
	steps    []step
	header   unix.CapUserHeader
	caps     [2]unix.CapUserData
	hostname []byte
}

func (s *setup) add(what string, nr uintptr, args ...uintptr) {
	c := call{nr: nr}
	copy(c.args[:], args)
	s.steps = append(s.steps, step{call: c, what: what})
}

// newSetup plans the child's calls. Credentials are changed there and not on a thread of this
// process, so there is nothing to restore here: no thread of the daemon ever carries a pod's ids.
func newSetup(req Request) (*setup, error) {
	s := &setup{hostname: []byte(req.Hostname)}
	if req.User != nil {
		if err := s.addOwner(req.User.HostID); err != nil {
			return nil, err
		}
	}
	// After the change of credentials, which resets it. Should this process have died before, the
	// child ends when it reads from the socket.
	s.add("die with the parent", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL))
	pins := req.pins()
	for _, k := range kinds { // one by one: an error then says which kind met its limit
		if k.path(pins) != "" {
			s.add("create "+k.name+" namespace", unix.SYS_UNSHARE, k.flag)
			s.steps[len(s.steps)-1].flag = k.flag
		}
	}
	if len(s.hostname) > 0 {
		s.add("set hostname "+req.Hostname, unix.SYS_SETHOSTNAME, address(&s.hostname[0]), uintptr(len(s.hostname)))
	}
	return s, nil
}

// addOwner plans to take on the effective uid that will own the user namespace. The real and saved uid stay root's: no process of the pod may
// signal the child, and RLIMIT_NPROC, which does not bind a process whose real uid is root, does
// not cap the namespace either.
func (s *setup) addOwner(uid uint32) error {
	s.header.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err := unix.Capget(&s.header, &s.caps[0]); err != nil {
		return fmt.Errorf("get capabilities: %w", err)
	}
	for i := range s.caps {
		s.caps[i].Effective = s.caps[i].Permitted
	}
	s.add(fmt.Sprintf("set effective uid %d", uid), unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
	// Leaving uid 0 cleared the effective capabilities, and made the memory, which is this
	// process's too, not dumpable.
	s.add("set capabilities", unix.SYS_CAPSET, address(&s.header), address(&s.caps[0]))
	if wasDumpable() {
		s.add("make dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)
	}
	return nil
}

// address is for memory that outlives the child's use of it.
func address[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// wasDumpable is what this process was before the first child was made. The children change it
// for moments, side by side, so none of them can tell by looking.
var wasDumpable = sync.OnceValue(func() bool {
	got, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return err == nil && got == 1
})

// setUp makes the namespaces that req asks for, without content but for the hostname.
func (c *child) setUp(ctx context.Context, req Request) error {
	s, err := newSetup(req)
	if err != nil {
		return err
	}
	if req.User != nil {
		if err := liftLimits(c.pid); err != nil {
			return err
		}
	}
	calls := make([]call, len(s.steps))
	for i := range s.steps {
		calls[i] = s.steps[i].call
	}
	c.keep = s
	failed, errno, err := c.run(ctx, calls)
	switch {
	case err != nil:
		return err
	case errno == 0:
		return nil
	case s.steps[failed].flag != 0:
		return unshareError(s.steps[failed].flag, errno)
	}
	return fmt.Errorf("namespace child: %s: %w", s.steps[failed].what, errno)
}

// writeMaps gives the child's user namespace its ids. Its setgroups stays "allow": the writer
// has CAP_SETGID over the parent namespace, so the kernel does not ask for "deny".
func (c *child) writeMaps(m IDMap) error {
	line := fmt.Appendf(nil, "0 %d %d\n", m.HostID, m.Length)
	for _, name := range []string{"uid_map", "gid_map"} {
		fd, err := unix.Open(c.proc(name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s of the namespace child: %w", name, err)
		}
		_, err = unix.Write(fd, line) // the kernel takes a map in one write, once
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("map %d ids from host id %d on: %w", m.Length, m.HostID, err)
		}
	}
	return nil
}

// writeSysctl has the child write s. errno is the child's own failure.
func (c *child) writeSysctl(ctx context.Context, s sysctl) (errno syscall.Errno, err error) {
	const noDir = 0 // the path is absolute
	path, value := []byte(s.file()+"\x00"), s.line()
	c.keep = [][]byte{path, value}
	open := []call{{nr: unix.SYS_OPENAT, args: [6]uintptr{noDir, address(&path[0]), unix.O_WRONLY}}}
	if _, errno, err := c.run(ctx, open); errno != 0 || err != nil {
		return errno, err
	}
	fd := open[0].ret
	_, errno, err = c.run(ctx, []call{
		{nr: unix.SYS_WRITE, args: [6]uintptr{fd, address(&value[0]), uintptr(len(value))}},
		{nr: unix.SYS_CLOSE, args: [6]uintptr{fd}},
	})
	return errno, err
}

// pin mounts the child's namespaces on the files at pins.
func (c *child) pin(pins Pins) error {
	for _, k := range kinds {
		if path := k.path(pins); path != "" {
			if err := unix.Mount(c.proc("ns/"+k.proc), path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("pin %s namespace at %s: %w", k.name, path, err)
			}
		}
	}
	return nil
}
