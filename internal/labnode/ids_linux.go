package labnode

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The ids that nodes of the lab share out among themselves: those that no other allocator on Linux uses.
const (
	// IDsPerRange is the length of one pod's range.
	IDsPerRange = 65536
	// RangesPerNode is how many ranges one node owns unless it asks for more, half of them as kubelet's.
	RangesPerNode = 128

	firstID   = 2013265920
	lastID    = 2147352575
	idsInNode = RangesPerNode * IDsPerRange
	nodeCount = (lastID + 1 - firstID) / idsInNode
)

// Extent is a run of host ids.
type Extent struct {
	Start, Length uint32
}

// Contains tells whether id lies in the extent.
func (e Extent) Contains(id uint32) bool { return id >= e.Start && id-e.Start < e.Length }

// idBlock is a run of host ids that this process holds by locks, so that nodes that run side by side
// never share an id: the kernel counts some limits by it, and the leak check goes by it.
type idBlock struct {
	Extent
	locks []*os.File
}

// acquireIDs takes the first free run of so many blocks of RangesPerNode. A lock that its holder did not release ends with the holder.
func acquireIDs(blocks uint32) (*idBlock, error) {
	dir := filepath.Join(os.TempDir(), "userns-shim-lab-ids")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of id locks: %w", err)
	}
	b := &idBlock{}
	for i := range uint32(nodeCount) {
		lock, err := tryLock(filepath.Join(dir, fmt.Sprintf("%d.lock", i)))
		if lock == nil {
			if err := errors.Join(err, b.release()); err != nil {
				return nil, err
			}
			b = &idBlock{}
			continue
		}
		b.locks = append(b.locks, lock)
		if held := uint32(len(b.locks)); held == blocks {
			b.Extent = Extent{Start: firstID + (i+1-held)*idsInNode, Length: held * idsInNode}
			return b, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("%d blocks of lab ids in a row: all %d are in use (locks in %s)", blocks, nodeCount, dir), b.release())
}

func (b *idBlock) release() error {
	var errs []error
	for _, lock := range b.locks {
		errs = append(errs, lock.Close())
	}
	return errors.Join(errs...)
}

// tryLock opens and locks a file, and returns nil when another process or node holds the lock.
func tryLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return file, nil
	}
	file.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
