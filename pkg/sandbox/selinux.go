package sandbox

import (
	"fmt"
	"os"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// Labels gives out SELinux labels; they are empty on a host without SELinux.
type Labels interface {
	// Resolve completes what a client asks for, with the process label inherit where it asks for nothing.
	Resolve(want *ocispec.SELinux, inherit string) (ocispec.SELinuxLabels, error)
	Reserve(process string) error
	Release(process string)
	Relabel(path, mount string) error
}

// label gives the pod its label. Its containers have the same unless they ask for another.
func (m *Manager) label(rec *Record) (err error) {
	rec.SELinux, err = m.opts.Labels.Resolve(rec.Spec.SELinux, "")
	return err
}

// releaseLabel gives the pod's label back, unless another pod was given the same by its client.
func (m *Manager) releaseLabel(rec Record) {
	for _, other := range m.table.All() {
		if other.ID != rec.ID && other.SELinux.Process == rec.SELinux.Process {
			return
		}
	}
	m.opts.Labels.Release(rec.SELinux.Process)
}

// relabelFiles lets the pod's containers use the files that they share.
func (m *Manager) relabelFiles(rec Record) error {
	p := m.Paths(rec.ID)
	files := []string{p.ResolvConf, p.Hostname}
	if _, err := os.Lstat(p.Hosts); err == nil {
		files = append(files, p.Hosts)
	}
	if rec.Spec.Namespaces.IPC != ModeNode {
		files = append(files, p.Shm)
	}
	for _, file := range files {
		if err := m.opts.Labels.Relabel(file, rec.SELinux.Mount); err != nil {
			return err
		}
	}
	return nil
}

// reserveLabels keeps the labels of recorded sandboxes from being given to others.
func (m *Manager) reserveLabels() error {
	for _, rec := range m.table.All() {
		if err := m.opts.Labels.Reserve(rec.SELinux.Process); err != nil {
			return fmt.Errorf("sandbox %s: %w", rec.ID, err)
		}
	}
	return nil
}
