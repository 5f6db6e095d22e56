package installer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// The places of what is not a program.
const (
	servicePath = "/etc/systemd/system/" + Unit
	// ConfigPath is userns-shim's configuration file.
	ConfigPath = "/etc/userns-shim/config.yaml"
	// JournalPath is what runs write down; copies of replaced files are below backupDir.
	JournalPath = "/var/lib/userns-shim/install/journal.json"
	backupDir   = "/var/lib/userns-shim/install/backup"
	// replacedDir has what an upgrade replaced.
	replacedDir = "/var/lib/userns-shim/install/replaced"
)

// programs are what Source has.
var programs = []string{"userns-shim", "userns-shim-init"}

// host is the node's file system below root. A link in it, absolute ones included, leads nowhere out of root.
type host struct{ root string }

// path is where a file of the node is for this process.
func (h host) path(name string) (string, error) {
	full, err := securejoin.SecureJoin(h.root, name)
	if err != nil {
		return "", fmt.Errorf("find %s below %s: %w", name, h.root, err)
	}
	return full, nil
}

// socket is the path of an endpoint's socket.
func (h host) socket(endpoint string) string {
	full, err := h.path(strings.TrimPrefix(endpoint, "unix://"))
	if err != nil {
		return endpoint // dialling it tells what is wrong
	}
	return full
}

// read returns nil without an error for a file that is not there.
func (h host) read(name string) ([]byte, error) {
	full, err := h.path(name)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(full)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// write replaces a file in one step, and is durable when it returns. A program that runs keeps its old file.
func (h host) write(name string, data []byte, mode fs.FileMode) error {
	full, err := h.path(name)
	if err != nil {
		return err
	}
	dir := filepath.Dir(full)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(full)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), full)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(tmp.Name())))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// content is one file to put on the node.
type content struct {
	path string
	data []byte
	mode fs.FileMode
	// source is read instead of data.
	source string
	// keep leaves a file that is there.
	keep bool
}

// placed lists what is put on the node.
func (i *Installer) placed() []content {
	var out []content
	for _, name := range programs {
		out = append(out, content{path: filepath.Join(i.opts.BinDir, name), source: filepath.Join(i.opts.Source, name), mode: 0o755})
	}
	return append(out,
		content{path: servicePath, data: i.opts.ServiceFile, mode: 0o644},
		content{path: ConfigPath, data: i.opts.Config, mode: 0o644, keep: true},
	)
}

func (c content) load() ([]byte, error) {
	if c.source == "" {
		return c.data, nil
	}
	return os.ReadFile(c.source)
}

// copyOf is where dir has the copy of a file.
func copyOf(dir, name string) string {
	return filepath.Join(dir, strings.ReplaceAll(name[1:], "/", "_"))
}

// remember tells how a file is brought back that is about to be replaced; its copy will be in dir. What is kept on the
// node anyway needs none.
func (h host) remember(files []content, dir string) ([]remembered, error) {
	var out []remembered
	for _, f := range files {
		if f.keep {
			continue
		}
		r := remembered{Path: f.path}
		full, err := h.path(f.path)
		if err != nil {
			return nil, err
		}
		if info, err := os.Stat(full); err == nil {
			r.Backup, r.Mode = copyOf(dir, f.path), info.Mode().Perm()
			if err := h.remove(r.Backup); err != nil { // of an earlier run
				return nil, err
			}
		}
		out = append(out, r)
	}
	return out, nil
}

func (h host) remove(name string) error {
	full, err := h.path(name)
	if err != nil {
		return err
	}
	if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// placeAll copies what it replaces to dir, and writes the files that differ.
func (i *Installer) placeAll(dir string) error {
	for _, f := range i.placed() {
		data, err := f.load()
		if err != nil {
			return fmt.Errorf("read what to install: %w", err)
		}
		there, err := i.host.read(f.path)
		if err != nil {
			return err
		}
		if there != nil && (f.keep || bytes.Equal(there, data)) {
			continue
		}
		if there != nil {
			if err := i.host.write(copyOf(dir, f.path), there, 0o600); err != nil {
				return err
			}
		}
		if err := i.host.write(f.path, data, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// restore brings a file back as it was before, or removes it.
func (h host) restore(r remembered) error {
	if r.Backup == "" {
		return h.remove(r.Path)
	}
	data, err := h.read(r.Backup)
	if err != nil || data == nil {
		return err // never replaced
	}
	return h.write(r.Path, data, r.Mode)
}

// sameFiles tells whether programs and unit are those to install.
func (i *Installer) sameFiles() bool {
	for _, f := range i.placed() {
		want, err := f.load()
		there, readErr := i.host.read(f.path)
		if err != nil || readErr != nil || there == nil || !f.keep && !bytes.Equal(want, there) {
			return false
		}
	}
	return true
}

func (h host) readJournal(j *journal) error {
	data, err := h.read(JournalPath)
	if err != nil || data == nil {
		return err
	}
	if err := json.Unmarshal(data, j); err != nil {
		return fmt.Errorf("read %s: %w", JournalPath, err)
	}
	return nil
}

func (h host) writeJournal(j journal) error {
	data, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	return h.write(JournalPath, append(data, '\n'), 0o600)
}
