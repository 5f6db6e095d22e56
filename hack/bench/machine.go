package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of /proc/stat on every architecture: the kernel converts to it.
const tick = 10 * time.Millisecond

// usage is how long the machine's processors had worked at some time, and how long for the benchmark.
type usage struct {
	at         time.Time
	busy, ours time.Duration
}

// usage counts the runtimes, their pods and this process as ours. What the kernel's own threads do for them
// is among the rest.
func (l *lab) usage() (usage, error) {
	now := usage{at: time.Now()}
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return usage{}, fmt.Errorf("read own processor time: %w", err)
	}
	now.ours = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	for _, s := range l.sides {
		used, err := s.account.processorTime()
		if err != nil {
			return usage{}, err
		}
		now.ours += used
	}
	var err error
	now.busy, err = busyTime()
	return now, err
}

// othersShare is how much of the processors something else had since then, from 0 to 1.
func (u usage) othersShare(since usage, processors int) float64 {
	others := (u.busy - since.busy) - (u.ours - since.ours)
	return max(0, others.Seconds()/(u.at.Sub(since.at).Seconds()*float64(processors)))
}

// busyTime sums up the first line of /proc/stat without idle and iowait, and without the time of guests, which
// is part of user and nice.
func busyTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(first)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("parse /proc/stat: its first line is %q", first)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse /proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// load is the load average of the last minute.
func load() (float64, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	var average float64
	if _, err := fmt.Sscan(string(text), &average); err != nil {
		return 0, fmt.Errorf("parse /proc/loadavg: %w", err)
	}
	return average, nil
}
