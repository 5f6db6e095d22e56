package stats

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// readNumber returns the number in a file, Unlimited for "max" and for -1, and 0 where there is
// no number.
func readNumber(dir, file string) uint64 {
	data, err := slurp(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	return parseNumber(strings.TrimSpace(string(data)))
}

func parseNumber(s string) uint64 {
	if s == "max" || s == "-1" {
		return Unlimited
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// readKey returns the number behind a key in a file of "key number" lines.
func readKey(dir, file, key string) (value uint64, ok bool) {
	data, err := slurp(filepath.Join(dir, file))
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(data) {
		name, number, found := strings.Cut(string(bytes.TrimSpace(line)), " ")
		if found && name == key {
			return parseNumber(number), true
		}
	}
	return 0, false
}

// deviceCounts are two counters of one device, by what was done.
type deviceCounts struct {
	major, minor  uint64
	reads, writes uint64
}

// parseDeviceCounts reads version 1's lines "major:minor operation number". Other operations
// than reading and writing count the same traffic again in other ways.
func parseDeviceCounts(data []byte) []deviceCounts {
	var out []deviceCounts
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) != 3 {
			continue
		}
		major, minor, err := parseDevice(fields[0])
		if err != nil {
			continue
		}
		i := slices.IndexFunc(out, func(d deviceCounts) bool { return d.major == major && d.minor == minor })
		if i < 0 {
			i, out = len(out), append(out, deviceCounts{major: major, minor: minor})
		}
		switch fields[1] {
		case "Read":
			out[i].reads = parseNumber(fields[2])
		case "Write":
			out[i].writes = parseNumber(fields[2])
		}
	}
	return out
}

func parseDevice(s string) (major, minor uint64, err error) {
	a, b, _ := strings.Cut(s, ":")
	major, errA := strconv.ParseUint(a, 10, 32)
	minor, errB := strconv.ParseUint(b, 10, 32)
	return major, minor, errors.Join(errA, errB)
}

// listProcesses returns those of a cgroup and all below it.
func listProcesses(dir string) ([]int, error) {
	var pids []int
	err := eachProcess(dir, func(line string) {
		if pid, err := strconv.Atoi(line); err == nil {
			pids = append(pids, pid)
		}
	})
	return pids, err
}

func countProcesses(dir string) (uint64, error) {
	var n uint64
	err := eachProcess(dir, func(string) { n++ })
	return n, err
}

// eachProcess walks the directory itself: containers with a service manager have cgroups of
// their own below theirs. Those come and go meanwhile.
func eachProcess(dir string, visit func(line string)) error {
	if err := eachLine(filepath.Join(dir, "cgroup.procs"), visit); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		err := eachProcess(filepath.Join(dir, entry.Name()), visit)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
			return err
		}
	}
	return nil
}

func eachLine(path string, visit func(line string)) error {
	data, err := slurp(path)
	// A threaded cgroup of version 2 counts its processes in the domain above it.
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return err
	}
	for line := range bytes.Lines(data) {
		visit(string(bytes.TrimSpace(line)))
	}
	return nil
}
