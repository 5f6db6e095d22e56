package crilog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

// openTarget opens the log file path below dir.
//
// The attacker is a pod with a writable hostPath volume over the log directory: it
// may put symlinks, FIFOs or devices where the log belongs, at any time, and would
// have its output written to a file of the host. dir itself is kubelet's and may be
// reached through symlinks (operators move /var/log). Below it, directories are
// resolved inside dir (pathrs-lite: a symlink cannot lead out), and the last
// component is opened with O_NOFOLLOW, and O_NONBLOCK so that a FIFO cannot block.
func openTarget(dir, path string) (target, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { // a caller other than kubelet may leave that to us
		return nil, err
	}
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	parent, err := pathrs.MkdirAllHandle(root, filepath.Dir(path), 0o755)
	if err != nil {
		return nil, fmt.Errorf("directory of %q in %q: %w", path, dir, err)
	}
	defer parent.Close()

	const flags = unix.O_RDWR | unix.O_APPEND | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := openat(int(parent.Fd()), filepath.Base(path), flags, 0o640)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("%w: %w", ErrNotRegular, err)
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), filepath.Join(dir, path))
	torn, err := inspect(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &logFile{file: file, torn: torn}, nil
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// inspect refuses what is no regular file, and says whether a crash tore the last
// record.
func inspect(file *os.File) (torn bool, err error) {
	info, err := file.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, ErrNotRegular
	}
	if info.Size() == 0 {
		return false, nil
	}
	var last [1]byte
	if _, err := file.ReadAt(last[:], info.Size()-1); err != nil {
		return false, err
	}
	return last[0] != '\n', nil
}

// logFile is a target on disk, opened for appending.
type logFile struct {
	file *os.File
	torn bool // the file ends in a record without a line feed
}

// Write appends p. A torn record before it is ended first, so that it cannot spoil
// the next one.
func (l *logFile) Write(p []byte) (int, error) {
	if l.torn {
		if _, err := l.file.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		l.torn = false
	}
	return l.file.Write(p)
}

// Cut removes the file's last n bytes. userns-shim is the only writer, so the size
// is stable; kubelet renames log files and never shortens them.
func (l *logFile) Cut(n int64) error {
	if n == 0 {
		return nil
	}
	l.torn = true
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if err := l.file.Truncate(max(info.Size()-n, 0)); err != nil {
		return err
	}
	l.torn = false
	return nil
}

func (l *logFile) Close() error { return l.file.Close() }
