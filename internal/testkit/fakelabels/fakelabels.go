// Package fakelabels gives out SELinux labels in tests as a host with SELinux does, and keeps which are in use. It sets none: the
// library does that, behind pkg/ocispec/selinuxlabel.
package fakelabels

import (
	"fmt"
	"sync"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// Labels gives out labels. Its fields are read when nothing else uses it.
type Labels struct {
	Used      map[string]bool   // by process label
	Relabeled map[string]string // file label by path

	mu   sync.Mutex
	next int
}

// New returns a fake that has given out no label.
func New() *Labels {
	return &Labels{Used: map[string]bool{}, Relabeled: map[string]string{}}
}

// Resolve returns the level that is asked for, the label inherit, or the next of its own.
func (f *Labels) Resolve(want *ocispec.SELinux, inherit string) (ocispec.SELinuxLabels, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	label := inherit
	if want != nil && want.Level != "" {
		label = want.Level
	} else if inherit == "" {
		f.next++
		label = fmt.Sprintf("s0:c%d", f.next)
	}
	f.Used[label] = true
	return ocispec.SELinuxLabels{Process: label, Mount: "file " + label}, nil
}

// Reserve notes that a label is in use.
func (f *Labels) Reserve(label string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Used[label] = true
	return nil
}

// Release notes that it no longer is.
func (f *Labels) Release(label string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.Used, label)
}

// Relabel notes a path's label.
func (f *Labels) Relabel(path, label string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Relabeled[path] = label
	return nil
}
