package stats

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"k8s.io/utils/clock"
)

// ReaderOptions say where cgroups are.
type ReaderOptions struct {
	// Root is where they are mounted: the one hierarchy of version 2, or a directory for each
	// controller of version 1. Empty means /sys/fs/cgroup.
	Root string
	// Unified says that all controllers are in the hierarchy of version 2. A hybrid machine, which has
	// them in those of version 1, is not unified.
	Unified bool
	Clock   clock.PassiveClock
}

// Reader reads cgroups. It is safe for concurrent use.
type Reader struct {
	version version
	clock   clock.PassiveClock
}

// version is what differs between the two versions of cgroups. All take a path below the root.
type version interface {
	// read fills in all but the time and the processes.
	read(cgroup string) (Reading, error)
	limits(cgroup string) Limits
	// dir is a directory that lists the cgroup's processes.
	dir(cgroup string) string
}

// NewReader returns a reader. It looks once at what the kernel accounts.
func NewReader(opts ReaderOptions) (*Reader, error) {
	if opts.Root == "" {
		opts.Root = "/sys/fs/cgroup"
	}
	if _, err := os.Stat(opts.Root); err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	if opts.Unified {
		return &Reader{version: version2{root: opts.Root}, clock: opts.Clock}, nil
	}
	return &Reader{version: newVersion1(opts.Root), clock: opts.Clock}, nil
}

// Read returns what the cgroup uses now, and an error that wraps ErrGone when there is none.
func (r *Reader) Read(cgroup string) (Reading, error) {
	at := r.clock.Now()
	reading, err := r.version.read(cgroup)
	if err == nil {
		reading.Processes, err = countProcesses(r.version.dir(cgroup))
	}
	if err != nil || !r.exists(cgroup) {
		return Reading{}, r.failure(cgroup, err)
	}
	reading.At = at
	return reading, nil
}

// Limits are the settings of a cgroup.
type Limits struct {
	CPUShares         uint64 // version 2's weight on version 1's scale
	CPUPeriod         uint64 // microseconds
	CPUQuota          uint64 // microseconds in each period; Unlimited
	MemoryReservation uint64 // bytes
	SwapLimit         uint64 // bytes; on version 1 of memory and swap together
}

// Limits returns the settings; what cannot be read is 0.
func (r *Reader) Limits(cgroup string) Limits { return r.version.limits(cgroup) }

// PIDs returns the processes in the cgroup and below it.
func (r *Reader) PIDs(cgroup string) ([]int, error) {
	pids, err := listProcesses(r.version.dir(cgroup))
	if err != nil {
		return nil, r.failure(cgroup, err)
	}
	return pids, nil
}

func (r *Reader) exists(cgroup string) bool {
	_, err := os.Stat(r.version.dir(cgroup))
	return err == nil
}

// failure names a cgroup that could not be read. The files of one that is removed while they
// are open answer ENODEV.
func (r *Reader) failure(cgroup string, err error) error {
	if err == nil || !r.exists(cgroup) || errors.Is(err, syscall.ENODEV) {
		err = ErrGone
	}
	return fmt.Errorf("read cgroup %s: %w", cgroup, err)
}

// has says whether a cgroup has a file.
func has(dir, file string) bool {
	_, err := os.Stat(filepath.Join(dir, file))
	return err == nil
}
