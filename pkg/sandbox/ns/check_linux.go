package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

var (
	// ErrNotPinned says that a path holds no namespace (any more): the host rebooted, or the pin
	// was never finished or is removed.
	ErrNotPinned = errors.New("namespace is not pinned")

	// ErrForeign says that a path holds a namespace, but not the pod's: of another kind, owned
	// by another id or by another user namespace.
	ErrForeign = errors.New("pinned namespace is not the pod's")
)

// nsInode identifies a namespace among those alive at one moment. The kernel reuses the numbers,
// so two of them are compared only while both namespaces are held open.
type nsInode struct{ dev, ino uint64 }

// Check reports whether pins hold living namespaces of a pod whose user namespace has the mapping
// user, nil for the host's. It returns the first error, wrapping ErrNotPinned or ErrForeign
// when the question could be answered. That the mapping itself is as recorded cannot be read
// from a namespace without a process in it; its owner, the first id, can.
func Check(pins Pins, user *IDMap) error {
	if (user != nil) != (pins.User != "") {
		return fmt.Errorf("%w: a pin of the user namespace and a mapping go together", ErrInvalid)
	}
	userPath := pins.User
	if user == nil {
		userPath = "/proc/self/ns/user"
	}
	userNS, err := openNS(userPath, unix.CLONE_NEWUSER)
	if err != nil {
		return err
	}
	defer userNS.Close()
	if user != nil {
		if err := checkOwnerUID(userNS, user.HostID); err != nil {
			return err
		}
	}
	want, err := inodeOf(int(userNS.Fd()))
	if err != nil {
		return fmt.Errorf("check namespace %s: %w", userPath, err)
	}
	for _, k := range kinds {
		path := k.path(pins)
		if k.flag == unix.CLONE_NEWUSER || path == "" {
			continue
		}
		if err := checkOwnerNS(path, k, want); err != nil {
			return err
		}
	}
	return nil
}

// openNS opens the namespace at path and makes sure that it is one, of the kind given.
func openNS(path string, flag uintptr) (_ *os.File, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotPinned, err)
	}
	if err != nil {
		return nil, fmt.Errorf("check namespace: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("check namespace %s: %w", path, err)
	}
	if st.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("%w: nothing is mounted on %s", ErrNotPinned, path)
	}
	got, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return nil, fmt.Errorf("kind of namespace %s: %w", path, err)
	}
	if uintptr(got) != flag {
		return nil, fmt.Errorf("%w: %s is a %s namespace, not a %s namespace",
			ErrForeign, path, kindOf(uintptr(got)).name, kindOf(flag).name)
	}
	return f, nil
}

func checkOwnerUID(f *os.File, want uint32) error {
	uid, err := ownerUID(int(f.Fd()))
	if err != nil {
		return fmt.Errorf("owner of namespace %s: %w", f.Name(), err)
	}
	if uid != want {
		return fmt.Errorf("%w: user namespace %s belongs to uid %d, not %d", ErrForeign, f.Name(), uid, want)
	}
	return nil
}

func checkOwnerNS(path string, k kind, want nsInode) error {
	f, err := openNS(path, k.flag)
	if err != nil {
		return err
	}
	defer f.Close()
	owner, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return fmt.Errorf("user namespace of %s: %w", path, err)
	}
	defer unix.Close(owner)
	got, err := inodeOf(owner)
	if err != nil {
		return fmt.Errorf("user namespace of %s: %w", path, err)
	}
	if got != want {
		return fmt.Errorf("%w: %s namespace %s belongs to another user namespace", ErrForeign, k.name, path)
	}
	return nil
}

// ownerUID returns the host id of the creator of a user namespace.
func ownerUID(fd int) (uint32, error) {
	uid, err := unix.IoctlGetUint32(fd, unix.NS_GET_OWNER_UID)
	return uid, err
}

func inodeOf(fd int) (nsInode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nsInode{}, err
	}
	return nsInode{st.Dev, st.Ino}, nil
}
