package sandbox

import (
	"errors"
	"testing"

	"github.com/userns-shim/userns-shim/internal/testkit/fakelabels"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// TestLabels follows a pod's label from its making over a restart to its end.
func TestLabels(t *testing.T) {
	n := newNode(t, nil)
	given := n.opts.Labels.(*fakelabels.Labels)
	rec, err := n.Run(t.Context(), podSpec("a"))
	if err != nil || rec.SELinux.Process != "s0:c1" {
		t.Fatalf("got %+v, %v, want the label s0:c1", rec.SELinux, err)
	}
	for _, path := range []string{n.Paths(rec.ID).Shm, n.Paths(rec.ID).ResolvConf, n.Paths(rec.ID).Hostname, n.Paths(rec.ID).Hosts} {
		if got := given.Relabeled[path]; got != "file s0:c1" {
			t.Errorf("%s has the label %q", path, got)
		}
	}
	n.opts.Labels = fakelabels.New()
	n.restart(t)
	given = n.opts.Labels.(*fakelabels.Labels)
	if !given.Used["s0:c1"] {
		t.Error("after a restart the label is free for others")
	}
	if err := n.Remove(t.Context(), rec.ID); err != nil || given.Used["s0:c1"] {
		t.Errorf("removed: %v, label in use: %t", err, given.Used["s0:c1"])
	}
}

func TestLabelOfTwoPodsIsReleasedWithTheLast(t *testing.T) {
	n := newNode(t, nil)
	given := n.opts.Labels.(*fakelabels.Labels)
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
		if err := n.Remove(t.Context(), id); err != nil || given.Used["s0:c7"] != (i == 0) {
			t.Errorf("pod %d removed: %v, label in use: %t", i, err, given.Used["s0:c7"])
		}
	}
}

func TestLabelOfAPodThatCannotBeMadeIsReleased(t *testing.T) {
	n := newNode(t, nil)
	n.host.setFail("create")
	if _, err := n.Run(t.Context(), podSpec("a")); !errors.Is(err, errInjected) {
		t.Fatalf("got %v", err)
	}
	if used := n.opts.Labels.(*fakelabels.Labels).Used; len(used) != 0 {
		t.Errorf("labels in use: %v", used)
	}
	spec := podSpec("b")
	spec.SELinux = &ocispec.SELinux{Level: "nonsense"}
	if _, err := n.Run(t.Context(), spec); !errors.Is(err, ocispec.ErrInvalid) {
		t.Errorf("a level that is none: %v, want ErrInvalid", err)
	}
}
