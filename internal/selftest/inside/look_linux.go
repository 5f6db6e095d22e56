package inside

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Look gathers the facts. An error means that something could not even be looked at; what was
// tried and refused is a fact.
func Look(req Request) (Facts, error) {
	facts := Facts{ID: Owner{UID: uint32(unix.Geteuid()), GID: uint32(unix.Getegid())}}
	err := errors.Join(
		readWords("/proc/self/uid_map", &facts.UIDMap),
		readWords("/proc/self/gid_map", &facts.GIDMap),
		readWords("/proc/self/setgroups", &facts.SetGroups),
		listProcesses(&facts.Processes),
		listInterfaces(&facts.Interfaces),
		lookAt("/", &Witness{}, &facts.Root),
		lookAt(req.Witness, &facts.Witness, &facts.Witness.Owner),
	)
	if err != nil {
		return Facts{}, err
	}
	facts.Made = makeFile(req.File)
	if req.PID != 0 {
		facts.Signal = attempt(unix.Kill(req.PID, 0))
	}
	// In the host's own user namespace the container could do harm.
	if strings.HasPrefix(facts.UIDMap, "0 0 ") {
		facts.Hostname.Error = "not tried in the host's user namespace"
		facts.Tmpfs.Error = facts.Hostname.Error
		return facts, nil
	}
	facts.Hostname = attempt(setHostname(filepath.Base(req.File)))
	facts.Tmpfs = attempt(mountTmpfs(req.File + ".mnt"))
	return facts, nil
}

func attempt(err error) Attempt[struct{}] {
	if err != nil {
		return Attempt[struct{}]{Error: err.Error()}
	}
	return Attempt[struct{}]{}
}

func readWords(path string, to *string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	*to = strings.Join(lines, "; ")
	return nil
}

// commandLimit cuts command lines: where a pod sees the host's processes, the report of the
// failure is not to be megabytes.
const commandLimit = 200

func listProcesses(to *[]string) error {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, path := range paths {
		// A process that has just ended is none.
		if data, err := os.ReadFile(path); err == nil {
			data = data[:min(len(data), commandLimit)]
			*to = append(*to, strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", " ")))
		}
	}
	return nil
}

func listInterfaces(to *[]string) error {
	data, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		// The two lines of the table's head have no colon.
		if name, _, ok := strings.Cut(line, ":"); ok {
			*to = append(*to, strings.TrimSpace(name))
		}
	}
	return nil
}

func lookAt(path string, file *Witness, owner *Owner) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	file.Path, file.Inode = path, st.Ino
	*owner = Owner{UID: st.Uid, GID: st.Gid}
	return nil
}

func makeFile(path string) Attempt[Owner] {
	var made Attempt[Owner]
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err == nil {
		err = errors.Join(file.Close(), lookAt(path, &Witness{}, &made.Value))
	}
	if err != nil {
		made.Error = err.Error()
	}
	return made
}

// setHostname sets another name, and then the old one again.
func setHostname(name string) error {
	old, err := os.Hostname()
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("sethostname: %w", err)
	}
	if got, err := os.Hostname(); err != nil || got != name {
		return errors.Join(fmt.Errorf("the host name is %q after it was set to %q", got, name), err)
	}
	return unix.Sethostname([]byte(old))
}

func mountTmpfs(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return nil
}
