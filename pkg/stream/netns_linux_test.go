package stream

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// init keeps tests off the process's first thread, which cannot end: one that changed
// its namespace there would change what /proc/self/ns names.
func init() { runtime.LockOSThread() }

// inNewNetns runs f on a thread of its own, which is in a new network namespace with
// loopback up, and keeps the namespace until the test ends. It returns its path.
func inNewNetns(t *testing.T, f func() error) string {
	t.Helper()
	var keep *os.File
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(lo); err != nil {
				return err
			}
			if keep, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keep.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", keep.Fd())
}

func TestForwardPortIntoNetns(t *testing.T) {
	testkit.RequireRoot(t)
	for network, ip := range map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1"} {
		t.Run(network, func(t *testing.T) {
			var l *net.TCPListener
			path := inNewNetns(t, func() (err error) {
				l, err = net.ListenTCP(network, &net.TCPAddr{IP: net.ParseIP(ip), Port: 80})
				return err
			})
			serveOn(t, l, echo)
			for range 20 {
				server, client := newClient(t)
				done := make(chan error, 1)
				go func() { done <- ForwardPort(t.Context(), path, 80, server) }()
				_, _ = io.WriteString(client, "hello pod")
				_ = client.CloseWrite()
				if got, err := io.ReadAll(client); err != nil || string(got) != "hello pod" {
					t.Errorf("got %q, %v", got, err)
				}
				if err := waitForward(t, done); err != nil {
					t.Error(err)
				}
			}
			checkThreads(t)
		})
	}
}

// checkThreads finds threads that a dial left in a pod's network namespace.
func checkThreads(t *testing.T) {
	t.Helper()
	own, err := netns.GetFromPath("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		ns, err := netns.GetFromPath("/proc/self/task/" + task.Name() + "/ns/net")
		if err != nil {
			continue // the thread has ended
		}
		if !ns.Equal(own) {
			t.Errorf("thread %s is in another network namespace", task.Name())
		}
		_ = ns.Close()
	}
}
