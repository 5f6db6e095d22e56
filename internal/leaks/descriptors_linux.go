package leaks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// addDescriptors lists what daemons keep alive by open files alone: namespaces, and mounts that stand in no
// mount table, such as idmapped clones. Nothing else shows those.
func (s Scope) addDescriptors(inv Inventory) error {
	for _, pid := range s.Daemons {
		if pid == 0 {
			continue
		}
		err := addDescriptorsOf(inv, pid)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may have ended
			return fmt.Errorf("list open files of daemon %d: %w", pid, err)
		}
	}
	return nil
}

func addDescriptorsOf(inv Inventory, pid int) error {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	mounts, err := mountIDs(dir)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, "fd", entry.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if isNamespace(target) {
			inv.add("daemon's namespace", "%s", target)
			continue
		}
		id, ok := pathMount(filepath.Join(dir, "fdinfo", entry.Name()))
		if ok && !mounts[id] && !isLasting(filepath.Join(dir, "fd", entry.Name())) {
			inv.add("daemon's detached mount", "%s", target)
		}
	}
	return nil
}

// isNamespace knows links such as "user:[4026531837]" of the kinds that pods have pinned. Mount namespaces are
// left out: a daemon keeps one to stage clones in.
func isNamespace(link string) bool {
	kind, _, found := strings.Cut(link, ":[")
	return found && slices.Contains([]string{"user", "net", "ipc", "uts", "pid"}, kind)
}

// isLasting knows the detached mounts that a daemon makes at their first use and keeps until it ends, none
// of which is a pod's: pathrs-lite's private /proc, and the tmpfs of mode 0700 in which pkg/mounts stages
// clones before Linux 6.15.
func isLasting(path string) bool {
	var fs unix.Statfs_t
	var dir unix.Stat_t
	if unix.Statfs(path, &fs) != nil || unix.Stat(path, &dir) != nil {
		return false
	}
	stage := fs.Type == unix.TMPFS_MAGIC && dir.Mode == unix.S_IFDIR|0o700 && dir.Uid == 0
	return fs.Type == unix.PROC_SUPER_MAGIC || stage
}

func mountIDs(dir string) (map[int]bool, error) {
	file, err := os.Open(filepath.Join(dir, "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	list, err := mountinfo.GetMountsFromReader(file, nil)
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	ids := map[int]bool{}
	for _, m := range list {
		ids[m.ID] = true
	}
	return ids, nil
}

// pathMount reads the mount id of an O_PATH descriptor, which those of open_tree(2) and fsmount(2) are, out
// of its fdinfo. Other descriptors, whose files may come from another mount namespace, have none here, nor
// has one that was closed meanwhile.
func pathMount(fdinfo string) (int, bool) {
	data, err := os.ReadFile(fdinfo)
	if err != nil {
		return 0, false
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.TrimSpace(value)
	}
	flags, err := strconv.ParseUint(fields["flags"], 8, 64)
	if err != nil || flags&unix.O_PATH == 0 {
		return 0, false
	}
	id, err := strconv.Atoi(fields["mnt_id"])
	return id, err == nil
}
