package container

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// pidEntry is the PID namespace of a specification; none means the host's.
func pidEntry(spec *specs.Spec) (path string, found bool) {
	i := slices.IndexFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	if i < 0 {
		return "", false
	}
	return spec.Linux.Namespaces[i].Path, true
}

func TestPIDNamespaceOfContainer(t *testing.T) {
	const shared = "/run/p"
	for _, tc := range []struct {
		name      string
		pod       sandbox.Mode
		container PIDMode
		path      string
		host      bool
	}{
		{"shared", sandbox.ModePod, PIDPod, shared, false},
		{"own in a pod that shares", sandbox.ModePod, PIDContainer, "", false},
		{"own", sandbox.ModeContainer, PIDContainer, "", false},
		{"the pod's, which has none", sandbox.ModeContainer, PIDPod, "", false},
		{"host's", sandbox.ModeNode, PIDNode, "", true},
		{"the pod's, which is the host's", sandbox.ModeNode, PIDPod, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t)
			n.sb.Spec.Namespaces.PID = tc.pod
			if tc.pod == sandbox.ModePod {
				n.sb.Pins.PID = shared
			}
			if tc.host {
				n.sb.Range, n.sb.Spec.Namespaces.User, n.sb.Pins.User = nil, nil, ""
			}
			spec := containerSpec("a")
			spec.Namespaces.PID = tc.container
			id, err := n.Create(t.Context(), n.sb, spec)
			if err != nil {
				t.Fatal(err)
			}
			if path, found := pidEntry(n.engine.records[id].Spec); path != tc.path || found == tc.host {
				t.Errorf("namespace at %q (found: %t), want %q", path, found, tc.path)
			}
		})
	}
	t.Run("shared and not pinned", func(t *testing.T) {
		n := newNode(t)
		n.sb.Spec.Namespaces.PID = sandbox.ModePod
		spec := containerSpec("a")
		spec.Namespaces.PID = PIDPod
		if _, err := n.Create(t.Context(), n.sb, spec); !errors.Is(err, sandbox.ErrNotReady) {
			t.Errorf("got %v, want %v", err, sandbox.ErrNotReady)
		}
		n.wantNothingLeft(t)
	})
}

func targeting(id string) Spec {
	spec := containerSpec("debugger")
	spec.Namespaces.PID, spec.Namespaces.TargetID = PIDTarget, id
	return spec
}

func TestTargetIsPinned(t *testing.T) {
	n := newNode(t)
	app := n.mustStart(t, "app")
	id, err := n.Create(t.Context(), n.sb, targeting(app))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(n.Paths(id).Dir, "pidns")
	if got, _ := pidEntry(n.engine.records[id].Spec); got != path || n.engine.pinned[path] != app {
		t.Errorf("specification has %q, pins are %v, want one of %s", got, n.engine.pinned, app)
	}
	if err := n.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.engine.end(id, 0)
	n.awaitExit(t, id)
	if len(n.engine.pinned) > 0 {
		t.Errorf("a container that has exited holds %v", n.engine.pinned)
	}
	for _, id := range []string{id, app} {
		if err := n.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	n.wantNothingLeft(t)
}

func TestTargetIsRefused(t *testing.T) {
	n := newNode(t)
	app, ended := n.mustStart(t, "app"), n.mustStart(t, "ended")
	n.engine.end(ended, 0)
	n.awaitExit(t, ended)
	elsewhere := n.sb
	elsewhere.ID = "sb2"
	n.recordSandbox(t, elsewhere)
	for _, tc := range []struct {
		name string
		sb   sandbox.Record
		id   string
		want error
	}{
		{"unknown", n.sb, "f00", ErrInvalid},
		{"of another sandbox", elsewhere, app, ErrInvalid},
		{"ended", n.sb, ended, ErrState},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := n.Create(t.Context(), tc.sb, targeting(tc.id)); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if len(n.engine.pinned) > 0 {
				t.Errorf("pins are left: %v", n.engine.pinned)
			}
		})
	}
	n.engine.fail = "pin"
	if _, err := n.Create(t.Context(), n.sb, targeting(app)); !errors.Is(err, errInjected) {
		t.Errorf("a target that cannot be pinned: got %v", err)
	}
}

func TestTargetThatEndsBeforeTheStart(t *testing.T) {
	n := newNode(t)
	app := n.mustStart(t, "app")
	id, err := n.Create(t.Context(), n.sb, targeting(app))
	if err != nil {
		t.Fatal(err)
	}
	n.engine.end(app, 0)
	n.awaitExit(t, app)
	if err := n.Start(t.Context(), id); !errors.Is(err, ErrState) {
		t.Errorf("got %v, want %v", err, ErrState)
	}
	if rec, _ := n.Get(id); rec.State != StateExited || rec.Reason != ReasonStartError {
		t.Errorf("got %+v", rec)
	}
}
