// Package cgroups looks after what a container's cgroup tells of its end and leaves behind: kills
// for want of memory, and the cgroup itself where the runtime was interrupted before it could remove it. It
// makes no cgroups and sets no limits, which is the OCI runtime's work, and measures nothing (package stats).
package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
)

// Host is the cgroups of a machine.
type Host struct {
	// roots are where hierarchies are mounted; a machine with version 1 or a hybrid one has several.
	roots []string
}

// New finds the hierarchies.
func New() (*Host, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	h := &Host{}
	for _, m := range mounts {
		// A bind mount of a cgroup further down is no hierarchy of the host's.
		if m.Root == "/" && !slices.Contains(h.roots, m.Mountpoint) {
			h.roots = append(h.roots, m.Mountpoint)
		}
	}
	return h, nil
}

// The files that count kills for want of memory, in version 1 and 2.
var oomFiles = []string{"memory.oom_control", "memory.events"}

// OOMKilled says whether the kernel has killed a process in the cgroup, or below it, for want of
// memory. A path is one below the roots; of a cgroup that is gone nobody knows.
func (h *Host) OOMKilled(path string) bool {
	for _, dir := range h.dirs(path) {
		for _, file := range oomFiles {
			data, err := os.ReadFile(filepath.Join(dir, file))
			if err == nil && killed(string(data)) {
				return true
			}
		}
	}
	return false
}

func killed(counts string) bool {
	for line := range strings.Lines(counts) {
		if key, count, _ := strings.Cut(strings.TrimSpace(line), " "); key == "oom_kill" {
			return count != "0"
		}
	}
	return false
}

// removeRetry is the pause between attempts; a process that was killed leaves its cgroup a little later.
const removeRetry = 20 * time.Millisecond

// Remove kills what is left in a cgroup and those below it, and removes them. A cgroup that is not there is done. The last
// element of path has to be a container's id: a parent that several share is not for this.
func (h *Host) Remove(ctx context.Context, path string) error {
	if filepath.Dir(filepath.Clean("/"+path)) == "/" {
		return fmt.Errorf("remove cgroup %s: it is at the top of its hierarchy", path)
	}
	for {
		err := h.tryRemove(path)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: %w: %w", path, context.Cause(ctx), err)
		case <-time.After(removeRetry):
		}
	}
}

func (h *Host) tryRemove(path string) error {
	var errs []error
	for _, top := range h.dirs(path) {
		dirs, err := below(top)
		errs = append(errs, err)
		for _, dir := range slices.Backward(dirs) {
			errs = append(errs, thaw(dir), killAll(dir))
			if err := removeDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// dirs are the cgroup's directories that exist. What lies at the place of a hierarchy that was unmounted is none.
func (h *Host) dirs(path string) []string {
	var out []string
	for _, root := range h.roots {
		if dir := filepath.Join(root, path); isCgroup(dir) {
			out = append(out, dir)
		}
	}
	return out
}

// below returns a cgroup and those below it, parents first.
func below(top string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone meanwhile
		case err == nil && entry.IsDir():
			dirs = append(dirs, path)
		}
		return err
	})
	return dirs, err
}

// thaw lets processes of a frozen cgroup die: version 1 keeps even a killed one frozen.
func thaw(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // another hierarchy
	}
	return err
}

func killAll(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil // gone, or a threaded one, whose processes are those of its parent
	}
	var errs []error
	for _, word := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(word)
		if err == nil && pid > 0 { // 0 is a process that this PID namespace does not show
			errs = append(errs, kill(pid, filepath.Base(dir)))
		}
	}
	return errors.Join(errs...)
}
