package labnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hidden are the well-known directories in which a container engine leaves things under names that two
// nodes of one machine would share. A world covers each of them with an empty tmpfs.
var hidden = []string{
	"/run/netns", "/run/containerd", "/run/userns-shim", "/var/lib/cni", "/var/lib/userns-shim",
	"/run/systemd/userdb",
	"/var/lib/kubelet", "/var/log/containers", // fixed paths of kubelet: device plugins, links to logs
}

// World is a mount namespace and a network namespace, held by one thread that belongs to it.
// The nil World is the caller's own namespaces, so code that starts programs need not tell the two apart.
type World struct {
	jobs chan func()
	done chan struct{}
	tid  int
}

// NewWorld makes a world in which loopback is up, all mounts are shared with each other but not with the
// outside, and the directories in hidden are empty. It needs root. Close ends it.
func NewWorld() (*World, error) {
	w := &World{jobs: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go w.pickThread(ready)
	if err := <-ready; err != nil {
		<-w.done
		return nil, fmt.Errorf("make a lab world: %w", err)
	}
	return w, nil
}

// pickThread keeps the world off the main thread: /proc/self shows that thread's namespaces, so all of the
// process would seem to be in the world. A goroutine that is started while this one holds the main thread
// lands on another.
func (w *World) pickThread(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		w.run(ready)
		return
	}
	go w.run(ready)
	<-w.done
	runtime.UnlockOSThread()
}

// run never unlocks its thread: Go then ends the thread together with the goroutine instead of giving one
// with foreign namespaces back to the scheduler. Children are started from this thread, so their
// parent-death signal fires when the world ends and not when some idle thread does.
func (w *World) run(ready chan<- error) {
	defer close(w.done)
	runtime.LockOSThread()
	w.tid = unix.Gettid()
	err := enterWorld()
	ready <- err
	if err != nil {
		return
	}
	for job := range w.jobs {
		job()
	}
}

func enterWorld() error {
	// CLONE_NEWNS needs a thread whose root and working directory are its own.
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare mount and network namespace: %w", err)
	}
	// First private, so that nothing reaches the outside; then shared, as a node's mounts are.
	for _, propagation := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|propagation, ""); err != nil {
			return fmt.Errorf("set propagation %#x of /: %w", propagation, err)
		}
	}
	for _, dir := range hidden {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}

// Do runs f on the world's thread. f must not start goroutines that expect to be in the world, and must
// not call Do again.
func (w *World) Do(f func() error) error {
	if w == nil {
		return f()
	}
	result := make(chan error, 1)
	select {
	case w.jobs <- func() { result <- f() }:
		return <-result
	case <-w.done:
		return errors.New("lab world is closed")
	}
}

// Start starts cmd inside the world.
func (w *World) Start(cmd *exec.Cmd) error {
	return w.Do(cmd.Start)
}

// Output runs cmd inside the world and returns what it wrote to stdout; an error carries its stderr.
func (w *World) Output(cmd *exec.Cmd) ([]byte, error) {
	var out []byte
	err := w.Do(func() error {
		var err error
		out, err = cmd.Output()
		return err
	})
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, fmt.Errorf("%s: %w: %s", cmd, err, exit.Stderr)
	}
	return out, err
}

// Listen opens a TCP listener on the world's loopback. It can be served from any goroutine: a socket stays
// in the network namespace in which it was made.
func (w *World) Listen() (net.Listener, error) {
	var listener net.Listener
	err := w.Do(func() error {
		var err error
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	return listener, err
}

// Dial connects to a literal address ("127.0.0.1:9464", "10.0.0.5:80") inside the world.
func (w *World) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := w.Do(func() error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// HTTPClient returns a client whose connections are made inside the world.
func (w *World) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: w.Dial, DisableKeepAlives: true}}
}

// ProcDir is the /proc directory of a thread in the world; its mountinfo and ns/ are the world's.
func (w *World) ProcDir() string {
	if w == nil {
		return "/proc/self"
	}
	return fmt.Sprintf("/proc/self/task/%d", w.tid)
}

// Close ends the world's thread. The namespaces go away with the last process that is in them.
func (w *World) Close() {
	if w == nil {
		return
	}
	close(w.jobs)
	<-w.done
}
