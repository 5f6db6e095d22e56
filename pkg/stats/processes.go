package stats

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Files are the open files of a container's processes.
type Files struct {
	Descriptors, Sockets uint64
	// Limit is the first process's soft limit of open files; Unlimited, and 0 when it is gone.
	Limit uint64
}

// readFiles counts through /proc. Processes that end meanwhile have no open files.
func readFiles(ctx context.Context, first int, pids []int) Files {
	out := Files{Limit: openFilesLimit(first)}
	for _, pid := range pids {
		if ctx.Err() != nil {
			break
		}
		dir := processDir(pid, "fd")
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		out.Descriptors += uint64(len(entries))
		for _, entry := range entries {
			target, err := os.Readlink(filepath.Join(dir, entry.Name()))
			if err == nil && strings.HasPrefix(target, "socket:") {
				out.Sockets++
			}
		}
	}
	return out
}

func processDir(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

func openFilesLimit(pid int) uint64 {
	data, err := os.ReadFile(processDir(pid, "limits"))
	if err != nil {
		return 0
	}
	return parseOpenFilesLimit(data)
}

func parseOpenFilesLimit(limits []byte) uint64 {
	for line := range bytes.Lines(limits) {
		rest, ok := strings.CutPrefix(string(line), "Max open files")
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) > 0 && fields[0] == "unlimited" {
			return Unlimited
		}
		if len(fields) > 0 {
			return parseNumber(fields[0])
		}
	}
	return 0
}
