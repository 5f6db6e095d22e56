// Package fdstore keeps FIFOs open beyond this process's life, in the file descriptor
// store that systemd has for services with FileDescriptorStoreMax= set.
//
// A pipe's content lives as long as somebody has the pipe open. What a container wrote
// while userns-shim was down, and before the container exited, would be lost when the
// shim closes its ends; kept here, it is found when the FIFO is opened again by its
// path. So the descriptors that systemd hands back are not used, but closed.
//
// The same socket takes the message that the service is ready, so that is sent here too.
//
// The package does not read from FIFOs, and does nothing where systemd did not start
// this process.
package fdstore

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstInherited is the number of the first descriptor that systemd passes.
const firstInherited = 3

// Store sends descriptors to systemd. The nil Store keeps nothing.
type Store struct {
	socket string
	// kept are the names that the store had when this process started. Keeping them
	// again would add to them.
	kept map[string]bool
}

// FromEnvironment returns the store that systemd offers, nil where there is none. It
// takes the offer out of the environment, so that no child takes it for its own, and
// closes the descriptors that come with it: the store has its own.
func FromEnvironment() *Store {
	socket, names := os.Getenv("NOTIFY_SOCKET"), os.Getenv("LISTEN_FDNAMES")
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || err != nil {
		count, names = 0, ""
	}
	for _, name := range []string{"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name) // fails for malformed names only
	}
	for fd := firstInherited; fd < firstInherited+count; fd++ {
		_ = unix.Close(fd) // there is nobody to tell of an error
	}
	if socket == "" {
		return nil
	}
	s := &Store{socket: socket, kept: map[string]bool{}}
	for name := range strings.SplitSeq(names, ":") {
		s.kept[name] = true
	}
	return s
}

// Keep has the FIFOs at paths kept open under a name, until Release. The name is at most
// 255 printable characters without a colon. A store that is full drops them silently.
func (s *Store) Keep(name string, paths ...string) error {
	if s == nil || s.kept[name] || len(paths) == 0 {
		return nil
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return fmt.Errorf("keep %s: open %s: %w", name, path, err)
		}
		fds = append(fds, fd)
	}
	// Without FDPOLL=0 systemd drops a FIFO when its last writer goes, which is when it is needed.
	if err := s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fds); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}

// Release lets go of what is kept under a name. A name that is not known is no error.
func (s *Store) Release(name string) error {
	if s == nil {
		return nil
	}
	if err := s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
		return fmt.Errorf("release %s: %w", name, err)
	}
	return nil
}

// Ready tells a service manager that waits for it (Type=notify) that the service answers.
func (s *Store) Ready() error {
	if s == nil {
		return nil
	}
	if err := s.send("READY=1", nil); err != nil {
		return fmt.Errorf("announce readiness: %w", err)
	}
	return nil
}

// sendSeconds bounds the wait for a service manager that does not read.
const sendSeconds = 5

func (s *Store) send(message string, fds []int) error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	defer unix.Close(socket)
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: sendSeconds}); err != nil {
		return fmt.Errorf("bound the wait for the service manager: %w", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(socket, []byte(message), rights, &unix.SockaddrUnix{Name: s.socket}, 0); err != nil {
		return fmt.Errorf("send to service manager at %s: %w", s.socket, err)
	}
	return nil
}
