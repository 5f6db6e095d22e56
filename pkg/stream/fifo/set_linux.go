package fifo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Create makes the FIFOs (mode 0600) and their directory (mode 0700). FIFOs that
// exist are kept, because a running shim may have them open. It returns ErrNotFIFO
// where a path is taken by something else.
func (s Set) Create() error {
	for _, path := range s.paths() {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("create directory of FIFO %s: %w", path, err)
		}
		err := unix.Mkfifo(path, 0o600)
		if errors.Is(err, unix.EEXIST) {
			err = checkFIFO(path)
		}
		if err != nil {
			return fmt.Errorf("create FIFO %s: %w", path, err)
		}
	}
	return nil
}

// Remove unlinks the FIFOs; one that is gone already is no error. Processes that
// have a FIFO open keep it.
func (s Set) Remove() error {
	var errs []error
	for _, path := range s.paths() {
		if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove FIFO %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

func checkFIFO(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return ErrNotFIFO
	}
	return nil
}

// open opens a FIFO without waiting for its other end and without following a
// symlink. The file takes part in the runtime's poller, so deadlines work on it.
func open(path string, mode int) (*os.File, error) {
	fd, err := openRetry(path, mode|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFIFO {
		err = ErrNotFIFO
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
