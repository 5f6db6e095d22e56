package labnode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/leaks"
)

// killMarked kills every process that belongs to the mark, the lab's own directory or name, and waits until
// they are gone.
func killMarked(ctx context.Context, mark string) error {
	for {
		procs, err := leaks.Processes()
		if err != nil {
			return err
		}
		var left []string
		for _, proc := range leaks.Belonging(procs, mark) {
			if proc.PID == os.Getpid() {
				continue
			}
			if err := unix.Kill(proc.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill pid %d (%s): %w", proc.PID, proc.Cmdline, err)
			}
			left = append(left, fmt.Sprintf("%d (%s)", proc.PID, proc.Cmdline))
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill leftovers of %s: %w: %s", mark, context.Cause(ctx), strings.Join(left, ", "))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// RemoveCgroups removes the cgroup called name at the top of every hierarchy, children first. Its processes
// must be gone.
func RemoveCgroups(name string) error {
	if name != filepath.Base(name) || strings.Trim(name, "./") == "" {
		return fmt.Errorf("remove cgroups: %q is not the name of one", name)
	}
	roots, err := leaks.CgroupRoots()
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		errs = append(errs, err)
		for _, dir := range slices.Backward(dirs) {
			errs = append(errs, removeCgroup(dir))
		}
	}
	return errors.Join(errs...)
}

// removeCgroup waits a little for EBUSY: a killed process leaves its cgroup some time after it is reaped.
func removeCgroup(dir string) error {
	for attempt := 0; ; attempt++ {
		err := unix.Rmdir(dir)
		switch {
		case err == nil || errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EBUSY) || attempt == 100:
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// RemoveDir unmounts what this process sees mounted below dir, newest first, and removes it. A mount that
// cannot be undone keeps the directory: RemoveAll would go on inside it.
func RemoveDir(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("read mount table: %w", err)
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove lab directory: %w", err)
	}
	return nil
}
