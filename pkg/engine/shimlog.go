package engine

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A shim serves nobody before it has opened the FIFO in its bundle that takes its log. Opening it for writing waits for a
// reader, which containerd is. Where the client that wants a task goes away just then, containerd closes its end and
// removes the bundle: the shim waits for good, listens, answers nothing, and ends on no signal but SIGKILL. A reader lets
// it go on, serve and be told to end. It costs a shim that is only slow nothing, so nobody need tell the two apart.

// shimLog is the name of the FIFO in the bundle.
const shimLog = "log"

// readShimLog opens the logs of all processes that have the socket of an inode open. What is no longer there, or cannot be
// opened, is left out.
func readShimLog(inode string) []io.Closer {
	holders, _ := filepath.Glob("/proc/[0-9]*/fd") // the pattern is well-formed
	var logs []io.Closer
	for _, fds := range holders {
		links := readLinks(fds)
		if !holds(links, "socket:["+inode+"]") {
			continue
		}
		for link, target := range links {
			if filepath.Base(strings.TrimSuffix(target, " (deleted)")) != shimLog {
				continue
			}
			if log := openReadEnd(link); log != nil {
				logs = append(logs, log)
			}
		}
	}
	return logs
}

// readLinks returns the targets of the links in a directory by their paths.
func readLinks(dir string) map[string]string {
	entries, _ := os.ReadDir(dir) // the process may have ended
	links := make(map[string]string, len(entries))
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if target, err := os.Readlink(path); err == nil {
			links[path] = target
		}
	}
	return links
}

func holds(links map[string]string, target string) bool {
	for _, t := range links {
		if t == target {
			return true
		}
	}
	return false
}

// openReadEnd opens a FIFO for reading and does not wait for a writer. It returns nil for what is no FIFO.
func openReadEnd(path string) io.Closer {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	return f
}
