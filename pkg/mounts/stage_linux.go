package mounts

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// stage is a mount namespace that holds nothing but a tmpfs, in which clones are attached for kernels
// that refuse detached layers. It is made once, when it is first needed, and held by a
// descriptor: a namespace made anew for every mount would copy the node's whole mount table each time, and for
// as long as it lives keep alive what others unmount. No process lives in it; whoever works in it
// is a thread that ends afterwards, because a thread that left its namespace must not be given back to
// the Go runtime.
//
// Attaching a clone in the host's own namespace instead would show it to every process on the node, and
// leave it there when this process is killed.
type stage struct {
	names atomic.Uint64

	mu     sync.RWMutex // held for reading by those who work in the stage
	ready  bool
	closed bool
	ns     fd // the mount namespace
	dir    fd // root of its tmpfs
}

// run runs work on a thread in the stage, with the tmpfs as working directory. Paths in work must
// be relative: what "/" is there does not matter.
func (s *stage) run(work func() error) error {
	if err := s.make(); err != nil {
		return fmt.Errorf("make staging mount namespace: %w", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return errClosed
	}
	return onThread(func() error {
		// setns into a mount namespace wants a thread that shares neither root nor working directory.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare filesystem attributes: %w", err)
		}
		if err := unix.Setns(int(s.ns), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter staging mount namespace: %w", err)
		}
		if err := s.chdir(); err != nil {
			return err
		}
		return work()
	})
}

// chdir takes a thread that is in the stage back to its tmpfs.
func (s *stage) chdir() error {
	if err := unix.Fchdir(int(s.dir)); err != nil {
		return fmt.Errorf("enter staging directory: %w", err)
	}
	return nil
}

// onThread runs work on a thread of its own and waits for it. The thread ends with the work.
//
// It is never the process's main thread, which the runtime cannot end: that would stay in the stage
// for good, and with it all of /proc/<pid>, which shows the main thread's namespaces.
func onThread(work func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(work) // cannot be given the main thread, which is locked here meanwhile
			runtime.UnlockOSThread()
			return
		}
		done <- work() // still locked: the runtime ends the thread with the goroutine
	}()
	return <-done
}

// make makes the namespace, if that was not done. After an error the next call tries again.
func (s *stage) make() error {
	s.mu.RLock()
	done := s.ready
	s.mu.RUnlock()
	if done {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.ready {
		return nil
	}
	dir, err := newTmpfs()
	if err != nil {
		return err
	}
	ns := noFD
	if err := onThread(func() (err error) { ns, err = emptyNamespace(dir); return err }); err != nil {
		dir.close()
		return err
	}
	s.ns, s.dir, s.ready = ns, dir, true
	return nil
}

// close drops the namespace and everything that is attached in it.
func (s *stage) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready && !s.closed {
		s.ns.close()
		s.dir.close()
	}
	s.closed = true
	return nil
}

// newTmpfs returns a detached tmpfs that only root may enter.
func newTmpfs() (fd, error) {
	fs, err := openFS("tmpfs")
	if err != nil {
		return noFD, err
	}
	defer fs.close()
	if err := fs.set(param{key: "mode", value: "0700"}); err != nil {
		return noFD, err
	}
	return fs.mount(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
}

// emptyNamespace moves the calling thread into a new mount namespace, attaches dir there, and
// unmounts everything else but the root filesystem, which is in use on every node anyhow. (pivot_root would do
// the same, but not where the root filesystem is the initramfs.)
func emptyNamespace(dir fd) (fd, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { // implies CLONE_FS
		return noFD, fmt.Errorf("unshare mount namespace: %w", err)
	}
	// Before anything else: unmounting in a shared mount would unmount on the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return noFD, fmt.Errorf("make mounts private: %w", err)
	}
	ns, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return noFD, &os.PathError{Op: "open", Path: "/proc/thread-self/ns/mnt", Err: err}
	}
	if err := unmountAll(); err != nil {
		fd(ns).close()
		return noFD, err
	}
	if err := moveMount(dir, cwd, "/"); err != nil {
		fd(ns).close()
		return noFD, fmt.Errorf("attach staging directory: %w", err)
	}
	return fd(ns), nil
}

// unmountAll unmounts all but the root in the calling thread's mount namespace. A mount takes
// those below it along, which are then not there any more when their turn comes.
func unmountAll() error {
	table, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	defer table.Close()
	mounted, err := mountinfo.GetMountsFromReader(table, nil)
	if err != nil {
		return fmt.Errorf("read mount table: %w", err)
	}
	for _, m := range mounted {
		if m.Mountpoint == "/" {
			continue
		}
		err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			return &os.PathError{Op: "umount in staging mount namespace", Path: m.Mountpoint, Err: err}
		}
	}
	return nil
}

// attach attaches a detached mount in the stage and returns its name there.
func (s *stage) attach(tree fd) (string, error) {
	name := s.name("c")
	err := s.run(func() error { return attachNew(tree, name) })
	return name, err
}

// name returns a name that is not in use in the stage.
func (s *stage) name(prefix string) string {
	return prefix + strconv.FormatUint(s.names.Add(1), 10)
}

// attachNew attaches a detached mount on a new directory, relative to the thread's own.
func attachNew(tree fd, name string) error {
	if err := unix.Mkdir(name, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	if err := moveMount(tree, cwd, name); err != nil {
		return errors.Join(fmt.Errorf("attach: %w", err), unix.Rmdir(name))
	}
	return nil
}

// detach undoes attach. What goes wrong here stays behind in the stage, invisible to all, and ends
// with it.
func (s *stage) detach(name string) {
	_ = s.run(func() error { return detachName(name) })
}

// detachName unmounts what is on a directory of the stage, with all below it, and removes the directory.
func detachName(name string) error {
	if strings.Contains(name, "/") {
		return fmt.Errorf("detach %q: not a name in the stage", name)
	}
	if err := unix.Unmount(name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return &os.PathError{Op: "umount", Path: name, Err: err}
	}
	return unix.Rmdir(name)
}
