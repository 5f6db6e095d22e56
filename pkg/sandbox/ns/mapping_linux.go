package ns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// MappingOf reads the mapping of the user namespace that is pinned at path. The kernel shows it in /proc/<pid>/uid_map alone, and a pin
// needs no process, so a child enters the namespace for a moment and runs nothing there.
//
// Errors wrap ErrNotPinned where nothing is pinned, and ErrForeign where it is no namespace that Create made: of another
// kind, or with other than one extent from 0 on, the same for uids and gids.
func MappingOf(ctx context.Context, path string) (m IDMap, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return IDMap{}, err
	}
	pin, err := openNS(path, unix.CLONE_NEWUSER) // held until the end
	if err != nil {
		return IDMap{}, err
	}
	defer pin.Close()
	onThrowawayThread(func() { m, err = mappingOf(ctx, path) })
	if err != nil {
		return IDMap{}, fmt.Errorf("read the mapping of user namespace %s: %w", path, err)
	}
	return m, nil
}

func mappingOf(ctx context.Context, path string) (m IDMap, err error) {
	c, err := startChild()
	if err != nil {
		return IDMap{}, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := c.enter(ctx, path); err != nil {
		return IDMap{}, err
	}
	uids, err := os.ReadFile(c.proc("uid_map"))
	if err != nil {
		return IDMap{}, err
	}
	gids, err := os.ReadFile(c.proc("gid_map"))
	if err != nil {
		return IDMap{}, err
	}
	return parseMaps(uids, gids)
}

// enter has the child join the user namespace that is pinned at path, which it opens itself: it has no copies of this process's descriptors.
func (c *child) enter(ctx context.Context, path string) error {
	const noDir = 0 // the path is absolute
	name := []byte(path + "\x00")
	c.keep = name
	begin := []call{
		{nr: unix.SYS_PRCTL, args: [6]uintptr{unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL)}},
		{nr: unix.SYS_OPENAT, args: [6]uintptr{noDir, address(&name[0]), unix.O_RDONLY | unix.O_NONBLOCK}},
	}
	if done, errno, err := c.run(ctx, begin); err != nil || errno != 0 {
		return enterError(done, errno, err)
	}
	done, errno, err := c.run(ctx, []call{{nr: unix.SYS_SETNS, args: [6]uintptr{begin[1].ret, unix.CLONE_NEWUSER}}})
	return enterError(len(begin)+done, errno, err)
}

func enterError(done int, errno syscall.Errno, err error) error {
	switch {
	case err != nil:
		return err
	case errno != 0:
		return fmt.Errorf("namespace child: %s: %w", []string{"die with the parent", "open", "enter"}[done], errno)
	}
	return nil
}

// parseMaps reads uid_map and gid_map, whose outer ids the kernel shows as the reader sees them.
func parseMaps(uids, gids []byte) (IDMap, error) {
	var inner uint32
	var m IDMap
	lines := bytes.Split(bytes.TrimSpace(uids), []byte("\n"))
	if _, err := fmt.Sscanf(string(lines[0]), "%d %d %d", &inner, &m.HostID, &m.Length); err != nil {
		return IDMap{}, fmt.Errorf("%w: its mapping is %.60q", ErrForeign, uids)
	}
	if len(lines) != 1 || inner != 0 || !bytes.Equal(uids, gids) {
		return IDMap{}, fmt.Errorf("%w: it maps the uids %.60q and the gids %.60q", ErrForeign, uids, gids)
	}
	return m, nil
}
