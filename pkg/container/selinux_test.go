package container

import (
	"slices"
	"testing"

	"github.com/userns-shim/userns-shim/internal/testkit/fakelabels"
	"github.com/userns-shim/userns-shim/pkg/mounts"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// TestLabels: a container has its pod's label, which stays when it goes, or one of its own.
func TestLabels(t *testing.T) {
	for name, tt := range map[string]struct {
		want  *ocispec.SELinux
		label string
		stays bool
	}{
		"inherited":    {nil, "s0:c9", true},
		"empty wish":   {&ocispec.SELinux{}, "s0:c9", true},
		"its own":      {&ocispec.SELinux{Level: "s0:c5"}, "s0:c5", false},
		"same as pods": {&ocispec.SELinux{Level: "s0:c9"}, "s0:c9", true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			given := n.opts.Labels.(*fakelabels.Labels)
			n.sb.SELinux = ocispec.SELinuxLabels{Process: "s0:c9", Mount: "file s0:c9"}
			dir := t.TempDir()
			spec := containerSpec("a")
			spec.Security.SELinux = tt.want
			spec.Mounts = []ocispec.Mount{{HostPath: dir, ContainerPath: "/v", SELinuxRelabel: true}}
			id, err := n.Create(t.Context(), n.sb, spec)
			if err != nil {
				t.Fatal(err)
			}
			if got := n.engine.records[id].Spec; got.Process.SelinuxLabel != tt.label || got.Linux.MountLabel != "file "+tt.label {
				t.Errorf("the specification has %q and %q, want %q", got.Process.SelinuxLabel, got.Linux.MountLabel, tt.label)
			}
			if got := given.Relabeled[dir]; got != "file "+tt.label {
				t.Errorf("the volume has the label %q", got)
			}
			if err := n.Remove(t.Context(), id); err != nil || given.Used[tt.label] != tt.stays {
				t.Errorf("removed: %v, label in use: %t, want %t", err, given.Used[tt.label], tt.stays)
			}
		})
	}
}

func TestOverlayIsMountedWithLabel(t *testing.T) {
	snapshot := []mounts.Mount{{Type: "overlay", Options: []string{"lowerdir=/l"}}}
	if got := labeled(snapshot, "u:r:t:s0:c1,c2")[0].Options; !slices.Equal(got, []string{"lowerdir=/l", "context=u:r:t:s0:c1,c2"}) {
		t.Errorf("options %q", got)
	}
	if len(snapshot[0].Options) != 1 {
		t.Error("the caller's mounts changed")
	}
	for _, same := range []struct {
		kind, label string
	}{{"overlay", ""}, {"bind", "u:r:t:s0"}} {
		got := labeled([]mounts.Mount{{Type: same.kind, Options: []string{"x"}}}, same.label)
		if !slices.Equal(got[0].Options, []string{"x"}) {
			t.Errorf("%s with label %q: options %q", same.kind, same.label, got[0].Options)
		}
	}
}
