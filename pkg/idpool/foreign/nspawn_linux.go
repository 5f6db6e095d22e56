package foreign

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// nspawnRange is how many ids systemd-nspawn picks for a container.
const nspawnRange = 65536

// Nspawn reads which ranges containers of systemd-nspawn (--private-users=pick) have locked, below root: files named by the first id.
// One that nobody holds a lock on is left over from a container that was killed.
func Nspawn(root string) Source {
	return Source{name: "nspawn", find: func(ctx context.Context, c claims, f *found) error {
		return forEachFile(ctx, []string{filepath.Join(root, "run/systemd/nspawn-uid/*")}, func(path string) error {
			start, err := strconv.ParseUint(filepath.Base(path), 10, 32)
			if err != nil {
				return nil // not one of its names
			}
			var ranges idRanges
			ranges.add(int64(start), nspawnRange)
			for _, r := range ranges {
				if err := nspawnLock(c, f, path, r); err != nil {
					return err
				}
			}
			return nil
		})
	}}
}

func nspawnLock(c claims, f *found, path string, r idpool.Range) error {
	o := Owner{Kind: KindNspawn, Range: r, Who: "systemd-nspawn", Where: path}
	if !c.admit(&o, "") {
		return nil
	}
	locked, err := isLocked(path)
	if locked {
		f.add(o)
	}
	return err
}

// isLocked says whether an open file description of somebody has locked a file, as systemd's lock files are.
func isLocked(path string) (bool, error) {
	file, err := openRegular(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return false, fmt.Errorf("ask for the lock on %s: %w", path, err)
	}
	return lock.Type != unix.F_UNLCK, nil
}
