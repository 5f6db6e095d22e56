package container

import (
	"fmt"
	"slices"

	"github.com/userns-shim/userns-shim/pkg/mounts"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// label gives the container the label that it asks for, or its pod's.
func (m *Manager) label(sb sandbox.Record, rec *Record) (err error) {
	rec.SELinux, err = m.opts.Labels.Resolve(rec.Spec.Security.SELinux, sb.SELinux.Process)
	rec.OwnLabel = rec.SELinux.Process != sb.SELinux.Process
	return err
}

// releaseLabel gives back a label of the container's own. One that it inherited is its pod's; one that its
// client chose can be another container's, too.
func (m *Manager) releaseLabel(rec Record) {
	if !rec.OwnLabel {
		return
	}
	for _, other := range m.table.All() {
		if other.ID != rec.ID && other.SELinux.Process == rec.SELinux.Process {
			return
		}
	}
	m.opts.Labels.Release(rec.SELinux.Process)
}

// reserveLabels keeps the labels of recorded containers from being given to others.
func (m *Manager) reserveLabels() error {
	for _, rec := range m.table.All() {
		if err := m.opts.Labels.Reserve(rec.SELinux.Process); err != nil {
			return fmt.Errorf("container %s: %w", rec.ID, err)
		}
	}
	return nil
}

// labeled gives all files of an overlay the label: their own is that of containerd's directory, which no
// container may write to.
func labeled(snapshot []mounts.Mount, label string) []mounts.Mount {
	if label == "" {
		return snapshot
	}
	out := slices.Clone(snapshot)
	for i, m := range out {
		if m.Type == "overlay" {
			out[i].Options = append(slices.Clone(m.Options), "context="+label)
		}
	}
	return out
}
