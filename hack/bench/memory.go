package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
)

// readMemory records what so many idle pods keep in memory. A page that several processes share counts
// for each in part (PSS), so shims of one program are not charged for it more than once.
func (s *side) readMemory(pods int) error {
	started, inside, err := s.account.processes()
	if err != nil {
		return err
	}
	shims := slices.DeleteFunc(slices.Clone(started), func(pid int) bool { return slices.Contains(s.daemons, pid) })
	if len(shims) == 0 || len(inside) < pods {
		return fmt.Errorf("find processes of %d pods on %s: its cgroup has %d shims and %d processes of pods",
			pods, s.name, len(shims), len(inside))
	}
	var errs []error
	pss := func(pids []int) float64 {
		total, err := proportional(pids)
		errs = append(errs, err)
		return total
	}
	perShim, perInside := pss(shims)/float64(pods), pss(inside)/float64(pods)
	s.figures.add(podMemory, perShim+perInside)
	s.figures.add(shimMemory, perShim)
	s.figures.add(insideMemory, perInside)
	s.figures.add(daemonMemory, pss(s.daemons))
	return errors.Join(errs...)
}

// proportional is the sum of the processes' PSS in MiB. One that ended meanwhile has none.
func proportional(pids []int) (float64, error) {
	var kib int64
	for _, pid := range pids {
		pss, err := readField(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss")
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH):
		case err != nil:
			return 0, fmt.Errorf("read memory of pid %d: %w", pid, err)
		}
		kib += pss
	}
	return float64(kib) / 1024, nil
}
