package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// serviceManager keeps descriptors for a service as systemd does, of which the test stands in the place: it
// takes the messages of sd_notify(3) that store and remove them.
type serviceManager struct {
	socket string
	conn   *net.UnixConn

	mu   sync.Mutex
	kept map[string][]int
	// ready counts the starts that were announced.
	ready int
}

func startServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	dir, err := os.MkdirTemp("", "sm-")
	if err != nil {
		t.Fatal(err)
	}
	s := &serviceManager{socket: filepath.Join(dir, "notify"), kept: map[string][]int{}}
	if s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.socket, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.serve() }()
	t.Cleanup(func() {
		_ = s.conn.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// serve returns when the socket is closed, and then keeps nothing any more.
func (s *serviceManager) serve() error {
	text, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oobn, _, _, err := s.conn.ReadMsgUnix(text, oob)
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			for name := range s.kept {
				s.removeLocked(name)
			}
			return nil
		}
		if err := s.take(string(text[:n]), oob[:oobn]); err != nil {
			return err
		}
	}
}

func (s *serviceManager) take(text string, oob []byte) error {
	var fds []int
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if fds, err = unix.ParseUnixRights(&m); err != nil {
			return err
		}
	}
	fields := map[string]string{}
	for _, line := range lines(text) {
		key, value, _ := strings.Cut(line, "=")
		fields[key] = value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name := fields["FDNAME"]; {
	case fields["FDSTORE"] == "1" && fields["FDPOLL"] == "0":
		s.kept[name] = append(s.kept[name], fds...)
	case fields["FDSTOREREMOVE"] == "1":
		s.removeLocked(name)
	case text == "READY=1":
		s.ready++
	default:
		return fmt.Errorf("service manager got %q", text)
	}
	return nil
}

func (s *serviceManager) removeLocked(name string) {
	for _, fd := range s.kept[name] {
		_ = unix.Close(fd)
	}
	delete(s.kept, name)
}

// starts counts how often the daemon said that it is ready.
func (s *serviceManager) starts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

func (s *serviceManager) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.kept)
}

// TestServiceManagerKeepsOutputOfContainersThatExitMeanwhile lets containers write and exit while userns-shim is
// down: what they wrote is in the pipes alone, which the shim closes.
func TestServiceManagerKeepsOutputOfContainersThatExitMeanwhile(t *testing.T) {
	t.Parallel()
	const count = 4000 // lines of 5 bytes on each stream: 20 KiB
	manager := startServiceManager(t)
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Env: []string{"NOTIFY_SOCKET=" + manager.socket}}})
	dir := volume(t, n)
	starts := 1
	for name, opt := range map[string]nodetest.ContainerOption{"pipes": withStdin(false), "terminal": withTTY} {
		t.Run(name, func(t *testing.T) {
			c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"), opt,
				nodetest.Shell(fmt.Sprintf("echo up; while [ ! -e /vol/go-%s ]; do sleep 0.05; done; seq %d; seq %d >&2; exit 5", name, count, count)))
			c.AwaitLog(t, "begun", func(l nodetest.ContainerLog) bool { return len(l) == 1 })
			proc := fmt.Sprintf("/proc/%d", c.PID(t))
			eventually(t, "one container has its output kept", func() bool { return manager.count() == 1 })
			if err := n.Daemon.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "go-"+name), "", 0, 0)
			eventually(t, "the container has exited", func() bool { _, err := os.Stat(proc); return err != nil })
			if err := n.Daemon.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			starts++
			eventually(t, "every start was announced", func() bool { return manager.starts() == starts })
			if code := c.Wait(t); code != 5 {
				t.Errorf("exit code %d", code)
			}
			log := c.Log(t)
			if len(log) != 1+2*count || log[len(log)-1].Text != fmt.Sprint(count) {
				t.Errorf("the log has %d lines, want %d", len(log), 1+2*count)
			}
			eventually(t, "no container has its output kept after its exit", func() bool { return manager.count() == 0 })
		})
	}
}
