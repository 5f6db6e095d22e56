package leaks

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Process is one process on the machine as /proc describes it.
type Process struct {
	PID     int
	Parent  int
	Cmdline string // arguments joined by spaces; the name in brackets where there are none
	Cgroups string // content of /proc/PID/cgroup
	NetNS   string // link text of /proc/PID/ns/net
	UID     uint32 // effective
	Zombie  bool
}

// Processes reads all processes. One that ends meanwhile is left out.
func Processes() ([]Process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []Process
	for _, dir := range dirs {
		if proc, ok := readProcess(dir); ok {
			list = append(list, proc)
		}
	}
	return list, nil
}

func readProcess(dir string) (Process, bool) {
	pid, err := strconv.Atoi(filepath.Base(dir))
	if err != nil {
		return Process{}, false
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return Process{}, false
	}
	proc := Process{PID: pid}
	name := ""
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(value)
		switch {
		case key == "Name":
			name = strings.TrimSpace(value)
		case key == "PPid" && len(fields) > 0:
			// A line that does not parse leaves 0, which is nobody's parent of interest.
			proc.Parent, _ = strconv.Atoi(fields[0])
		case key == "State" && len(fields) > 0:
			proc.Zombie = fields[0] == "Z" || fields[0] == "X"
		case key == "Uid" && len(fields) > 1:
			id, err := strconv.ParseUint(fields[1], 10, 32)
			if err != nil {
				return Process{}, false
			}
			proc.UID = uint32(id)
		}
	}
	// The following are empty for a process that is just ending, which is as good as unknown.
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	proc.Cmdline = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
	if proc.Cmdline == "" {
		proc.Cmdline = "[" + name + "]"
	}
	cgroups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
	proc.Cgroups = string(cgroups)
	proc.NetNS, _ = os.Readlink(filepath.Join(dir, "ns/net"))
	return proc, true
}

// Belonging returns the processes that carry the mark (a node's directory or name, which is random and so
// nobody else's) on an engine's command line or in their cgroup, and the descendants of both. Zombies are
// left out: their parent has yet to reap them.
func Belonging(procs []Process, mark string) []Process {
	children := map[int][]Process{}
	var queue, found []Process
	for _, proc := range procs {
		children[proc.Parent] = append(children[proc.Parent], proc)
		if proc.marked(mark) {
			queue = append(queue, proc)
		}
	}
	seen := map[int]bool{}
	for len(queue) > 0 {
		proc := queue[0]
		queue = queue[1:]
		if seen[proc.PID] {
			continue
		}
		seen[proc.PID] = true
		queue = append(queue, children[proc.PID]...)
		if !proc.Zombie {
			found = append(found, proc)
		}
	}
	return found
}

// engines are the programs that a mark on the command line counts for; somebody's `tail -f` of a log in
// the lab's directory is not to be killed.
var engines = []string{"containerd", "containerd-shim-runc-v2", "runc", "userns-shim"}

func (p Process) marked(mark string) bool {
	program, _, _ := strings.Cut(p.Cmdline, " ")
	if slices.Contains(engines, filepath.Base(program)) && containsElement(p.Cmdline, mark) {
		return true
	}
	return containsElement(p.Cgroups, mark)
}

// containsElement matches up to the end of a path element, so that a mark does not match a longer name.
func containsElement(text, mark string) bool {
	for {
		_, after, found := strings.Cut(text, mark)
		if !found {
			return false
		}
		if after == "" || strings.ContainsAny(after[:1], "/ \n:,") {
			return true
		}
		text = after
	}
}

// addProcesses lists the processes that belong to the node, are in its network namespace, or run as one of
// its ids, without the daemons and the caller.
func (s Scope) addProcesses(inv Inventory) error {
	if s.Mark == "" {
		return nil
	}
	procs, err := Processes()
	if err != nil {
		return err
	}
	netns, err := os.Readlink(filepath.Join(s.Namespaces.ProcDir(), "ns/net"))
	if err != nil {
		return fmt.Errorf("read network namespace: %w", err)
	}
	callers, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("read own network namespace: %w", err)
	}
	own := map[int]bool{os.Getpid(): true}
	for _, pid := range s.Daemons {
		own[pid] = true
	}
	suspects := Belonging(procs, s.Mark)
	for _, proc := range procs {
		if proc.Zombie {
			continue
		}
		if (netns != callers && proc.NetNS == netns) || (s.HasID != nil && s.HasID(proc.UID)) {
			suspects = append(suspects, proc)
		}
	}
	seen := map[int]bool{}
	for _, proc := range suspects {
		if !own[proc.PID] && !seen[proc.PID] {
			seen[proc.PID] = true
			inv.add("process", "%d uid %d: %s", proc.PID, proc.UID, proc.Cmdline)
		}
	}
	return nil
}
