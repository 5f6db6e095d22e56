package selinuxlabel

import (
	"errors"
	"testing"

	"github.com/opencontainers/selinux/go-selinux"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// TestResolve holds both kinds of hosts: without SELinux all is empty, with it pods differ and a pod's
// containers agree.
func TestResolve(t *testing.T) {
	var h Host
	resolve := func(want *ocispec.SELinux, inherit string) ocispec.SELinuxLabels {
		l, err := h.Resolve(want, inherit)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Release(l.Process) })
		return l
	}
	first, second := resolve(nil, ""), resolve(nil, "")
	same := resolve(nil, first.Process)
	own := resolve(&ocispec.SELinux{Level: "s0:c1,c2"}, first.Process)
	if !selinux.GetEnabled() {
		for _, l := range []ocispec.SELinuxLabels{first, second, same, own} {
			if l != (ocispec.SELinuxLabels{}) {
				t.Errorf("a host without SELinux gives %+v", l)
			}
		}
		return
	}
	if first.Process == second.Process || same.Process != first.Process || own.Process == first.Process {
		t.Errorf("labels %q, %q; inherited %q; own level %q", first, second, same, own)
	}
}

func TestResolveRefusesWhatIsNoLevel(t *testing.T) {
	if _, err := (Host{}).Resolve(&ocispec.SELinux{Level: "nonsense"}, ""); !errors.Is(err, ocispec.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

// TestRelabelWithoutLabel is what every sandbox of a host without SELinux does.
func TestRelabelWithoutLabel(t *testing.T) {
	if err := (Host{}).Relabel(t.TempDir(), ""); err != nil {
		t.Error(err)
	}
	if err := (Host{}).Reserve(""); err != nil {
		t.Error(err)
	}
}
