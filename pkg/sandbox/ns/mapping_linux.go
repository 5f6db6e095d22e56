package ns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MappingOf reads the mapping of the user namespace that is pinned at path. The kernel shows it in /proc/<pid>/uid_map alone, and a pin
// needs no process, so a child enters the namespace for a moment and runs nothing there.
//
// Errors wrap ErrNotPinned where nothing is pinned, and ErrForeign where it is no namespace that Create made: of another
// kind, or with other than one extent from 0 on, the same for uids and gids.
func MappingOf(ctx context.Context, path string) (m IDMap, err error) {
	pin, err := openNS(path, unix.CLONE_NEWUSER)
	if err != nil {
		return IDMap{}, err
	}
	defer pin.Close()
	onThrowawayThread(func() { m, err = mappingOf(ctx, pin) })
	if err != nil {
		return IDMap{}, fmt.Errorf("read the mapping of user namespace %s: %w", path, err)
	}
	return m, nil
}

func mappingOf(ctx context.Context, pin *os.File) (m IDMap, err error) {
	c, err := startChild()
	if err != nil {
		return IDMap{}, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := c.enter(ctx, pin); err != nil {
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

// enter has the child join a user namespace.
func (c *child) enter(ctx context.Context, pin *os.File) error {
	signals := new(uint64)
	*signals = math.MaxUint64
	c.keep = signals
	calls := []call{
		{nr: unix.SYS_RT_SIGPROCMASK, args: [6]uintptr{unix.SIG_SETMASK, address(signals), 0, unsafe.Sizeof(*signals)}},
		{nr: unix.SYS_SETNS, args: [6]uintptr{pin.Fd(), unix.CLONE_NEWUSER}},
		{nr: unix.SYS_CLOSE_RANGE, args: [6]uintptr{c.shared.socket + 1, math.MaxUint32}},
		{nr: unix.SYS_PRCTL, args: [6]uintptr{unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL)}},
	}
	done, errno, err := c.run(ctx, calls)
	switch {
	case err != nil:
		return err
	case errno != 0:
		return fmt.Errorf("namespace child: call %d: %w", done, errno)
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
