package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cgroupFiles reads the kernel's own figures of the cgroup that a process is in, as a person would.
type cgroupFiles struct {
	unified bool
	dirs    map[string]string // by controller; all the same on version 2
}

func cgroupFilesOf(t *testing.T, pid int) cgroupFiles {
	t.Helper()
	const root = "/sys/fs/cgroup"
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(root + "/cgroup.controllers")
	files := cgroupFiles{unified: err == nil, dirs: map[string]string{}}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		parts := strings.SplitN(line, ":", 3)
		for _, controller := range strings.Split(parts[1], ",") {
			dir := filepath.Join(root, controller, parts[2])
			if controller == "" && !files.unified {
				dir = filepath.Join(root, "unified", parts[2])
			}
			files.dirs[controller] = dir
		}
	}
	return files
}

// parent is the pod's cgroup.
func (c cgroupFiles) parent() cgroupFiles {
	up := cgroupFiles{unified: c.unified, dirs: map[string]string{}}
	for controller, dir := range c.dirs {
		up.dirs[controller] = filepath.Dir(dir)
	}
	return up
}

// number reads the word behind key in a file, or the only word when key is empty.
func (c cgroupFiles) number(t *testing.T, controller, file, key string) uint64 {
	t.Helper()
	if c.unified {
		controller = ""
	}
	data, err := os.ReadFile(filepath.Join(c.dirs[controller], file))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data))
	at := 0
	if key != "" {
		at = slices.Index(fields, key) + 1
	}
	if at >= len(fields) || key != "" && at == 0 {
		t.Fatalf("%s has no %q:\n%s", file, key, data)
	}
	number, err := strconv.ParseUint(fields[at], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func (c cgroupFiles) cpuNanos(t *testing.T) uint64 {
	t.Helper()
	if c.unified {
		return 1000 * c.number(t, "", "cpu.stat", "usage_usec")
	}
	return c.number(t, "cpuacct", "cpuacct.usage", "")
}

// memory returns the usage, and that without inactive files.
func (c cgroupFiles) memory(t *testing.T) (usage, workingSet, rss uint64) {
	t.Helper()
	if c.unified {
		usage = c.number(t, "", "memory.current", "")
		return usage, usage - c.number(t, "", "memory.stat", "inactive_file"), c.number(t, "", "memory.stat", "anon")
	}
	usage = c.number(t, "memory", "memory.usage_in_bytes", "")
	return usage, usage - c.number(t, "memory", "memory.stat", "total_inactive_file"), c.number(t, "memory", "memory.stat", "total_rss")
}

// wantNear holds a figure to a tenth of what the kernel says.
func wantNear(t *testing.T, what string, got, want uint64) {
	t.Helper()
	if diff := float64(got) - float64(want); diff > float64(want)/10 || -diff > float64(want)/10 {
		t.Errorf("%s is %d, the kernel says %d", what, got, want)
	}
}

// wantBetween holds a figure that grows to what the kernel said before and says after it was read.
func wantBetween(t *testing.T, what string, got, before, after uint64) {
	t.Helper()
	if float64(got) < 0.9*float64(before) || float64(got) > 1.1*float64(after) {
		t.Errorf("%s is %d, the kernel said %d before and says %d after", what, got, before, after)
	}
}

// moment is processor time with the time at which it was read: after since and before until.
type moment struct {
	since, until time.Time
	nanos        uint64
}

func (c cgroupFiles) moment(t *testing.T) moment {
	t.Helper()
	m := moment{since: time.Now(), nanos: c.cpuNanos(t)}
	m.until = time.Now()
	return m
}

// rate is the average between two moments.
func rate(nanos uint64, from, to time.Time) uint64 {
	return uint64(float64(nanos) / to.Sub(from).Seconds())
}

// wantUsage compares what was read since processor time was cpuBefore.
func wantUsage(t *testing.T, whose string, files cgroupFiles, cpuBefore uint64, cpu *runtimeapi.CpuUsage, memory *runtimeapi.MemoryUsage) {
	t.Helper()
	now := time.Now().UnixNano()
	for what, at := range map[string]int64{"processor": cpu.GetTimestamp(), "memory": memory.GetTimestamp()} {
		if age := time.Duration(now - at); age < 0 || age > time.Minute {
			t.Errorf("%s's stats of its %s are from %v ago", whose, what, age)
		}
	}
	wantBetween(t, whose+"'s processor time", cpu.GetUsageCoreNanoSeconds().GetValue(), cpuBefore, files.cpuNanos(t))
	usage, workingSet, rss := files.memory(t)
	wantNear(t, whose+"'s memory", memory.GetUsageBytes().GetValue(), usage)
	wantNear(t, whose+"'s working set", memory.GetWorkingSetBytes().GetValue(), workingSet)
	wantNear(t, whose+"'s anonymous memory", memory.GetRssBytes().GetValue(), rss)
	if memory.GetPageFaults().GetValue() == 0 {
		t.Errorf("%s has had no page faults", whose)
	}
}

// netDev is /proc/<pid>/net/dev: eight counters received and eight transmitted, by interface.
func netDev(t *testing.T, pid int) map[string][]uint64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]uint64{}
	for _, line := range strings.Split(string(data), "\n")[2:] {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		for _, field := range strings.Fields(rest) {
			number, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = append(out[name], number)
		}
	}
	return out
}
