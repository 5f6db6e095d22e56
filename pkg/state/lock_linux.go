package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is the time between two tries for a lock that another process holds.
const lockPoll = 20 * time.Millisecond

// lock takes bbolt's own lock on the open file, so that nobody writes while the
// file is inspected; bbolt, given the same descriptor, finds it taken already.
// It returns a *LockedError when timeout passes.
func lock(f *os.File, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock database %s: %w", f.Name(), err)
		case time.Now().After(deadline):
			return &LockedError{Path: f.Name(), Holder: lockHolder(f)}
		}
		time.Sleep(lockPoll)
	}
}

// lockHolder names the process that holds the lock on f as well as /proc tells
// it; it may have let go meanwhile.
func lockHolder(f *os.File) string {
	const unknown = "another process"
	info, err := f.Stat()
	if err != nil {
		return unknown
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], fmt.Sprintf(":%d", inode)) {
			continue
		}
		// The device number in that line is not the one of stat(2) on btrfs
		// and overlayfs, so the file is compared through the process.
		if pid := fields[4]; holds(pid, info) {
			name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
			return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
		}
	}
	return unknown
}

func holds(pid string, file os.FileInfo) bool {
	open, _ := filepath.Glob(filepath.Join("/proc", pid, "fd", "*"))
	for _, fd := range open {
		if info, err := os.Stat(fd); err == nil && os.SameFile(info, file) {
			return true
		}
	}
	return false
}
