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
	// RangesPerNode is how many ranges one node owns, half of them as kubelet's.
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

// idBlock is a block of host ids that this process holds by a lock, so that nodes that run side by side
// never share an id: the kernel counts some limits by it, and the leak check goes by it.
type idBlock struct {
	Extent
	lock *os.File
}

// acquireIDs takes the first free block. A lock that its holder did not release ends with the holder.
func acquireIDs() (*idBlock, error) {
	dir := filepath.Join(os.TempDir(), "userns-shim-lab-ids")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of id locks: %w", err)
	}
	for i := range uint32(nodeCount) {
		lock, err := tryLock(filepath.Join(dir, fmt.Sprintf("%d.lock", i)))
		if err != nil {
			return nil, err
		}
		if lock != nil {
			return &idBlock{Extent: Extent{Start: firstID + i*idsInNode, Length: idsInNode}, lock: lock}, nil
		}
	}
	return nil, fmt.Errorf("all %d blocks of lab ids are in use (locks in %s)", nodeCount, dir)
}

func (b *idBlock) release() error { return b.lock.Close() }

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
