package mounts

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// fd is a file descriptor that its holder closes. Its owner is always one function or one clone, so the
// weight of os.File (127 layers have 127 of them) buys nothing.
type fd int

// noFD stands for no file.
const noFD fd = -1

func (f fd) close() {
	if f != noFD {
		_ = unix.Close(int(f)) // nothing was written through it
	}
}

// fds are descriptors that are closed together.
type fds []fd

func (s fds) close() {
	for _, f := range s {
		f.close()
	}
}

// openDir opens a directory as a place in the tree, not for reading. The last component may be a
// symbolic link, as in every path that a snapshotter gives.
func openDir(path string) (fd, error) {
	f, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return noFD, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd(f), nil
}

// openBelow opens a directory below dir. The kernel guarantees that neither a symbolic link nor a mount
// leads out of the mount that dir is in, thus out of the idmap.
func openBelow(dir fd, path string) (fd, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	}
	f, err := retry(func() (int, error) { return unix.Openat2(int(dir), path, how) })
	if err != nil {
		return noFD, &os.PathError{Op: "openat2", Path: path, Err: err}
	}
	return fd(f), nil
}

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR { //nolint:errorlint // a raw errno from the line above
			return n, err
		}
	}
}

// status is what is asked about directories here.
type status struct {
	uid, gid  uint32
	mount     uint64 // id of the mount that holds it
	mountRoot bool
}

// stat asks about the file itself when path is empty.
func stat(dir fd, path string, flags int) (status, error) {
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	const mask = unix.STATX_UID | unix.STATX_GID | unix.STATX_MNT_ID // mount id: 5.8
	if err := unix.Statx(int(dir), path, flags, mask, &st); err != nil {
		return status{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return status{}, fmt.Errorf("statx %q: the kernel gives no mount id (needs Linux 5.8)", path)
	}
	return status{
		uid: st.Uid, gid: st.Gid, mount: st.Mnt_id,
		mountRoot: st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
	}, nil
}

// cwd makes a system call take a path as it is.
const cwd fd = unix.AT_FDCWD

// locate finds the mounts that hold directories.
func locate(paths ...string) ([]place, error) {
	places := make([]place, len(paths))
	for i, path := range paths {
		st, err := stat(cwd, path, 0)
		if err != nil {
			return nil, err
		}
		places[i] = place{path: path, mount: st.mount}
	}
	return places, nil
}
