package engine

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"
)

// The end of a shim is seen at its socket. The runc shim listens at a path that ends in a hash of
// containerd's address, the namespace and the group; the kernel refuses connections to it once the
// process is gone, and not before, since nothing else holds the listener open. The file stays:
// the shim removes only one that is named after its first container. So it is removed here.

const (
	// shimEnd bounds the wait for a shim that was told to end. Ending takes it some milliseconds.
	shimEnd = 10 * time.Second

	// strayShimEnd bounds it for one that may have reasons to stay.
	strayShimEnd = 500 * time.Millisecond
	// defaultSocketDir is where shims listen, unless containerd is configured otherwise.
	defaultSocketDir = "/run/containerd/s"

	// socketLook is the pause between looks for a shim's socket. A shim whose only task fails lives for some fifty
	// milliseconds.
	socketLook = 2 * time.Millisecond
)

// socketName is the last element of the path at which the shim of a group listens.
func (e *Engine) socketName(group string, more ...string) string {
	path := filepath.Join(append([]string{e.link.boundAddress(), e.opts.Namespace, group}, more...)...)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(path)))
}

// listener is a listening socket: its path, and its inode in decimal. The zero value is none.
type listener struct {
	path, inode string
}

// shimSocket returns the path at which the shim of a group listens, and "" where none does.
func (e *Engine) shimSocket(group string) (string, error) {
	l, err := e.shimListener(group)
	return l.path, err
}

// shimListener returns the socket at which the shim of a group listens, and the zero value where none does.
func (e *Engine) shimListener(group string) (listener, error) {
	table, err := os.Open("/proc/net/unix")
	if err != nil {
		return listener{}, fmt.Errorf("find shim of group %s: %w", group, err)
	}
	defer table.Close()
	l, err := findListener(table, e.socketName(group))
	if err != nil {
		return listener{}, fmt.Errorf("find shim of group %s: %w", group, err)
	}
	if l.path != "" {
		dir := filepath.Dir(l.path)
		e.socketDir.Store(&dir)
	}
	return l, nil
}

// learnSocketDir finds out where shims listen, once, while one is sure to. It is needed for shims that are gone
// before anybody looks.
func (e *Engine) learnSocketDir(ctx context.Context, group string) {
	if e.socketDir.Load() != nil {
		return
	}
	if path, err := e.shimSocket(group); err != nil || path == "" {
		klog.FromContext(ctx).Info("No socket of a running shim is seen: its end cannot be awaited", "group", group, "reason", err)
	}
}

// learnSocketDirDuring calls create, and looks for the socket of the group's shim meanwhile if where shims listen is not
// known: the shim of a create that fails is gone when it returns.
func (e *Engine) learnSocketDirDuring(group string, create func()) {
	if e.socketDir.Load() != nil {
		create()
		return
	}
	created := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			if path, err := e.shimSocket(group); err != nil || path != "" {
				return // an error is told by whoever looks for the shim's end
			}
			select {
			case <-created:
				return
			case <-time.After(socketLook):
			}
		}
	})
	create()
	close(created)
	looking.Wait()
}

// findListener looks in the format of /proc/net/unix for a listening socket with this file name.
func findListener(table io.Reader, name string) (listener, error) {
	const flagsField, inodeField, accepting = 3, 6, "00010000" // __SO_ACCEPTCON
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		numbers, path, ok := strings.Cut(lines.Text(), " /") // no field before the path has a slash
		if !ok || filepath.Base(path) != name {
			continue
		}
		if fields := strings.Fields(numbers); len(fields) > inodeField && fields[flagsField] == accepting {
			return listener{path: "/" + path, inode: fields[inodeField]}, nil
		}
	}
	return listener{}, lines.Err()
}

// endShim waits until the shim of the turn's group is gone, which was told to shut down, and removes
// its socket. The turn must be alone. Where the shim takes too long, the group's next turn that
// creates a task waits again.
func (e *Engine) endShim(ctx context.Context, t *turn, socket string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shimEnd)
	defer cancel()
	began := time.Now()
	if err := awaitNoListener(ctx, socket); err != nil {
		t.setEnding(true)
		return fmt.Errorf("shim of group %s still listens at %s after %v: %w", t.name, socket, shimEnd, err)
	}
	t.setEnding(false)
	klog.FromContext(ctx).V(5).Info("Shim ended", "group", t.name, "after", time.Since(began))
	if err := e.removeSockets(t.name); err != nil {
		return fmt.Errorf("remove socket of the ended shim of group %s: %w", t.name, err)
	}
	return nil
}

// endStrayShim tells a shim to end in which containerd knows no task of the turn's group, and waits a moment. It stays
// while it has a task of an interrupted create, which another call deletes and then ends it.
func (e *Engine) endStrayShim(ctx context.Context, t *turn, socket string) error {
	if err := e.shutDownShim(ctx, t.name); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), strayShimEnd)
	defer cancel()
	if awaitNoListener(wait, socket) != nil {
		return nil
	}
	return e.endShim(ctx, t, socket)
}

// removeSockets removes what the shim of a group leaves: its socket, and a second one that it has when
// containerd logs at debug level.
func (e *Engine) removeSockets(group string) error {
	dir := defaultSocketDir
	if learnt := e.socketDir.Load(); learnt != nil {
		dir = *learnt
	}
	var errs []error
	for _, name := range []string{e.socketName(group), e.socketName(group, "debug")} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// awaitNoListener returns nil once nothing listens at the socket, an empty path included.
func awaitNoListener(ctx context.Context, socket string) error {
	if socket == "" {
		return nil
	}
	for delay := time.Millisecond; probe(ctx, socket) == nil; delay = min(2*delay, 50*time.Millisecond) {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// probe connects to the socket, and returns an error once the kernel knows no listener there.
func probe(ctx context.Context, socket string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err == nil {
		return conn.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // a full backlog, or ctx ended: it listens
}
