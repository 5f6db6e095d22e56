package sandbox

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// fakeLabels gives out labels as a host with SELinux does, and keeps those that are in use.
type fakeLabels struct {
	mu        sync.Mutex
	next      int
	used      map[string]bool
	relabeled map[string]string // label by path
}

func newFakeLabels() *fakeLabels {
	return &fakeLabels{used: map[string]bool{}, relabeled: map[string]string{}}
}

func (f *fakeLabels) Resolve(want *ocispec.SELinux, inherit string) (ocispec.SELinuxLabels, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	label := inherit
	if want != nil && want.Level != "" {
		label = want.Level
	} else if inherit == "" {
		f.next++
		label = fmt.Sprintf("s0:c%d", f.next)
	}
	f.used[label] = true
	return ocispec.SELinuxLabels{Process: label, Mount: "file " + label}, nil
}

func (f *fakeLabels) Reserve(label string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.used[label] = true
	return nil
}

func (f *fakeLabels) Release(label string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.used, label)
}

func (f *fakeLabels) Relabel(path, label string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.relabeled[path] = label
	return nil
}

// TestLabels follows a pod's label from its making over a restart to its end.
func TestLabels(t *testing.T) {
	n := newNode(t, nil)
	labels := n.opts.Labels.(*fakeLabels)
	rec, err := n.Run(t.Context(), podSpec("a"))
	if err != nil || rec.SELinux.Process != "s0:c1" {
		t.Fatalf("got %+v, %v, want the label s0:c1", rec.SELinux, err)
	}
	for _, path := range []string{n.Paths(rec.ID).Shm, n.Paths(rec.ID).ResolvConf, n.Paths(rec.ID).Hostname} {
		if got := labels.relabeled[path]; got != "file s0:c1" {
			t.Errorf("%s has the label %q", path, got)
		}
	}
	n.opts.Labels = newFakeLabels()
	n.restart(t)
	labels = n.opts.Labels.(*fakeLabels)
	if !labels.used["s0:c1"] {
		t.Error("after a restart the label is free for others")
	}
	if err := n.Remove(t.Context(), rec.ID); err != nil || labels.used["s0:c1"] {
		t.Errorf("removed: %v, label in use: %t", err, labels.used["s0:c1"])
	}
}

func TestLabelOfTwoPodsIsReleasedWithTheLast(t *testing.T) {
	n := newNode(t, nil)
	labels := n.opts.Labels.(*fakeLabels)
	var ids []string
	for _, name := range []string{"a", "b"} {
		spec := podSpec(name)
		spec.SELinux = &ocispec.SELinux{Level: "s0:c7"}
		rec, err := n.Run(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, rec.ID)
	}
	for i, id := range ids {
		if err := n.Remove(t.Context(), id); err != nil || labels.used["s0:c7"] != (i == 0) {
			t.Errorf("pod %d removed: %v, label in use: %t", i, err, labels.used["s0:c7"])
		}
	}
}

func TestLabelOfAPodThatCannotBeMadeIsReleased(t *testing.T) {
	n := newNode(t, nil)
	n.host.setFail("create")
	if _, err := n.Run(t.Context(), podSpec("a")); !errors.Is(err, errInjected) {
		t.Fatalf("got %v", err)
	}
	if used := n.opts.Labels.(*fakeLabels).used; len(used) != 0 {
		t.Errorf("labels in use: %v", used)
	}
	spec := podSpec("b")
	spec.SELinux = &ocispec.SELinux{Level: "nonsense"}
	if _, err := n.Run(t.Context(), spec); !errors.Is(err, ocispec.ErrInvalid) {
		t.Errorf("a level that is none: %v, want ErrInvalid", err)
	}
}
