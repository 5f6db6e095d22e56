package hostids

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// ForEachProcess calls fn with the number of each process of a proc file system, until it returns an error.
func ForEachProcess(proc string, fn func(pid int) error) error { return forEachNumber(proc, fn) }

// Held are the ids that the threads of a process have, each once.
type Held struct {
	Command string // as the kernel cuts it; empty for a process that has ended
	IDs     []uint32
}

// Has tells whether an id is among them.
func (h Held) Has(id uint32) bool { return slices.Contains(h.IDs, id) }

// Credentials returns what the threads of a process have now. One that has ended, or is a zombie, has nothing.
func Credentials(proc string, pid int) (Held, error) {
	var h Held
	tasks := filepath.Join(proc, strconv.Itoa(pid), "task")
	err := forEachNumber(tasks, func(tid int) error {
		text, err := os.ReadFile(filepath.Join(tasks, strconv.Itoa(tid), "status"))
		if err != nil {
			return ignoreGone(err)
		}
		c, err := parseStatus(text)
		if err != nil || c.dead {
			return err
		}
		if h.Command == "" {
			h.Command = c.name
		}
		for _, id := range slices.Concat(c.uids, c.gids) {
			if !slices.Contains(h.IDs, id) {
				h.IDs = append(h.IDs, id)
			}
		}
		return nil
	})
	return h, ignoreGone(err)
}

// Maps returns the host ids that a process's user namespace maps, uids and gids together and each range once. It leaves out
// mappings of half of all ids and more, as Take does.
func Maps(proc string, pid int) ([]idpool.Range, error) {
	var all []idpool.Range
	for _, file := range []string{"uid_map", "gid_map"} {
		text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), file))
		if err != nil {
			return nil, ignoreGone(err)
		}
		ranges, err := parseIDMap(text)
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
		for _, r := range ranges {
			if !slices.Contains(all, r) {
				all = append(all, r)
			}
		}
	}
	return all, nil
}
