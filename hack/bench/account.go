package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
)

// account is a cgroup that has all processes of one runtime in it: the daemons, and with them the shims, OCI
// runtimes and network plugins that they start, in its child "daemons"; the pods beside that. So the kernel counts
// the processor time of programs that live for milliseconds, and of those that lose their parent. Work that
// the kernel does in threads of its own, such as the end of a network namespace, is counted nowhere.
type account struct {
	dir  string
	read func(dir string) (time.Duration, error)
}

const daemonsCgroup = "daemons"

// openAccount makes the cgroup and moves the daemons into it. The node removes it with all that are below its own.
func openAccount(cgroup string, daemons []int) (account, error) {
	a, err := findAccount(cgroup)
	if err != nil {
		return account{}, err
	}
	dir := filepath.Join(a.dir, daemonsCgroup)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return account{}, fmt.Errorf("make cgroup: %w", err)
	}
	for _, pid := range daemons {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return account{}, fmt.Errorf("move pid %d to its cgroup: %w", pid, err)
		}
	}
	return a, nil
}

// findAccount takes version 1's controller where there is one: then runc uses that version too.
func findAccount(cgroup string) (account, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return account{}, fmt.Errorf("read mount table: %w", err)
	}
	found := account{}
	for _, m := range mounts {
		switch {
		case m.FSType == "cgroup2" && found.dir == "":
			found = account{dir: filepath.Join(m.Mountpoint, cgroup), read: readCPUStat}
		case m.FSType == "cgroup" && strings.Contains(","+m.VFSOptions+",", ",cpuacct,"):
			return account{dir: filepath.Join(m.Mountpoint, cgroup), read: readCPUAcct}, nil
		}
	}
	if found.dir == "" {
		return account{}, errors.New("find a cgroup hierarchy that counts processor time: none is mounted")
	}
	return found, nil
}

// processorTime is what all processes that ever were in the cgroup have used.
func (a account) processorTime() (time.Duration, error) { return a.read(a.dir) }

// readCPUAcct reads nanoseconds.
func readCPUAcct(dir string) (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage"))
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	used, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse processor time of %s: %w", dir, err)
	}
	return time.Duration(used), nil
}

// readCPUStat reads microseconds, which a cgroup has whether or not the controller is enabled.
func readCPUStat(dir string) (time.Duration, error) {
	used, err := readField(filepath.Join(dir, "cpu.stat"), "usage_usec")
	return time.Duration(used) * time.Microsecond, err
}

// processes lists who is in the cgroup now: those that the daemons started, themselves included, and the pods'.
func (a account) processes() (daemons, pods []int, err error) {
	err = filepath.WalkDir(a.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		pids, err := readPIDs(filepath.Join(path, "cgroup.procs"))
		if filepath.Base(path) == daemonsCgroup {
			daemons = append(daemons, pids...)
		} else {
			pods = append(pods, pids...)
		}
		return err
	})
	return daemons, pods, err
}

func readPIDs(path string) ([]int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup: %w", err)
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// readField reads a number from a file of lines "name number" or "name: number unit".
func readField(path, name string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || strings.TrimSuffix(fields[0], ":") != name {
			continue
		}
		value, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse %s in %s: %w", name, path, err)
		}
		return value, nil
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return 0, fmt.Errorf("read %s: no %s in it", path, name)
}
