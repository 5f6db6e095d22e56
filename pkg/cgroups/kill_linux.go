package cgroups

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kill ends a process that is in a cgroup of that name. The pidfd is taken before the look at the cgroup, so
// that a number which was given to another process in between is noticed.
func kill(pid int, cgroup string) error {
	fd, err := unix.PidfdOpen(pid, 0) // close-on-exec by itself
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	member, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !isMember(string(member), cgroup) {
		return nil // it has ended
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

// isMember reads a file of the form of /proc/<pid>/cgroup: an element of one of its paths is the cgroup's name.
func isMember(text, cgroup string) bool {
	for line := range strings.Lines(text) {
		if slices.Contains(strings.Split(strings.TrimSuffix(line, "\n"), "/"), cgroup) {
			return true
		}
	}
	return false
}

// removeDir removes a directory that is a cgroup. Removing by rmdir alone never deletes a file.
func removeDir(dir string) error {
	if err := unix.Rmdir(dir); err != nil {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
