// Package fifo makes and opens the named pipes that carry a process's stdio
// between userns-shim and the containerd shim.
//
// The shim opens every output FIFO for writing and for reading, so the pipe and
// what it holds outlive a restart of userns-shim, and a reader sees the end of the
// stream only when the shim lets go. A reader here therefore has three states to
// tell apart, of which read(2) distinguishes two: data, every writer gone, and no
// writer yet. Opening without O_NONBLOCK, as other libraries do, hides the third
// state in a blocked open(2), which costs a thread for each FIFO and cannot say
// that a writer will never come; Reader asks poll(2) instead.
//
// The package does not know what flows through a FIFO, and starts no goroutine.
package fifo

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

var (
	// ErrNotFIFO says that a FIFO's path names something else.
	ErrNotFIFO = errors.New("not a FIFO")
	// ErrBadID says that an id cannot be part of a file name.
	ErrBadID = errors.New("id is not usable in a file name")
)

// Set is the FIFOs of one process. A path is empty where the process has no such stream.
type Set struct {
	Stdin, Stdout, Stderr string
}

// NewSet names the FIFOs of the process id below dir. A process with a terminal
// has no stderr: the terminal carries both.
func NewSet(dir, id string, stdin, tty bool) (Set, error) {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return Set{}, fmt.Errorf("name FIFOs of %q: %w", id, ErrBadID)
	}
	base := filepath.Join(dir, id)
	s := Set{Stdout: base + "-stdout"}
	if stdin {
		s.Stdin = base + "-stdin"
	}
	if !tty {
		s.Stderr = base + "-stderr"
	}
	return s, nil
}

func (s Set) paths() []string {
	var paths []string
	for _, p := range []string{s.Stdin, s.Stdout, s.Stderr} {
		if p != "" {
			paths = append(paths, p)
		}
	}
	return paths
}
