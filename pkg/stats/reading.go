package stats

import (
	"errors"
	"math"
	"time"
)

// ErrGone means that the cgroup does not exist, or went away while it was read.
var ErrGone = errors.New("cgroup is gone")

// Unlimited is a limit that is not set.
const Unlimited uint64 = math.MaxUint64

// Reading is what a cgroup and those below it use, the same for both versions of cgroups. What
// the kernel or its configuration does not account is nil.
type Reading struct {
	At        time.Time
	CPU       CPU
	Memory    *Memory
	Swap      *Swap
	IO        IO
	Tasks     *Tasks
	Processes uint64
}

// CPU is processor time in nanoseconds since the cgroup was made.
type CPU struct {
	Usage, User, System uint64
	// Periods are those in which the quota was enforced, Throttled those in which it ran out.
	Periods, Throttled uint64
	ThrottledTime      uint64
	Pressure           *Pressure
}

// Memory is in bytes.
type Memory struct {
	Usage uint64
	// Peak is the highest usage, 0 on version 2 before Linux 5.19.
	Peak  uint64
	Limit uint64
	// WorkingSet is the usage without file pages that the kernel has not seen used lately: what
	// eviction and the out-of-memory killer look at.
	WorkingSet uint64
	RSS        uint64 // anonymous
	Cache      uint64 // of files, tmpfs included
	Kernel     uint64
	MappedFile uint64

	ActiveFile, InactiveFile    uint64
	PageFaults, MajorPageFaults uint64
	FailCount                   uint64 // times that the limit was hit, version 1 only
	OOMKills                    uint64
	Pressure                    *Pressure
}

// Available is the limit less the working set. Without a limit nobody can say.
func (m Memory) Available() (bytes uint64, ok bool) {
	return room(m.Limit, m.WorkingSet)
}

// Swap is in bytes.
type Swap struct {
	Usage, Limit uint64
}

// Available is the limit less the usage. Without a limit nobody can say.
func (s Swap) Available() (bytes uint64, ok bool) {
	return room(s.Limit, s.Usage)
}

func room(limit, used uint64) (uint64, bool) {
	if limit == Unlimited {
		return 0, false
	}
	return limit - min(limit, used), true
}

// IO is what went to and came from block devices.
type IO struct {
	Devices  []DeviceIO
	Pressure *Pressure
}

// DeviceIO is the traffic of one block device.
type DeviceIO struct {
	Major, Minor          uint64
	ReadBytes, WriteBytes uint64
	Reads, Writes         uint64
}

// Tasks are threads; Limit can be Unlimited.
type Tasks struct {
	Current, Limit uint64
}

// Pressure is how tasks waited for a resource: Some says at least one did, Full all of them.
// Machines without any hierarchy of version 2 have none.
type Pressure struct {
	Some, Full *PressureData
}

// PressureData has averages in percent over as many seconds, and the total in nanoseconds.
type PressureData struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}
