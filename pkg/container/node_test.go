package container

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/klog/v2"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/userns-shim/userns-shim/internal/testkit/fakelabels"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec/qosclass"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
	"github.com/userns-shim/userns-shim/pkg/state"
)

type node struct {
	*Manager
	engine *fakeEngine
	opts   Options
	sb     sandbox.Record
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	db, err := state.Open(state.Options{Path: filepath.Join(dir, "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	engine := newFakeEngine()
	n := &node{
		engine: engine,
		opts: Options{
			Labels:  fakelabels.New(),
			Classes: qosclass.New(qosclass.Options{}),
			DB:      db, Images: engine, Snapshots: engine, Records: engine, Tasks: engine,
			Inspector: engine, Execs: engine, Rootfs: engine, PIDPins: engine, Cgroups: engine,
			Clock:          clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0)),
			Logger:         klog.Background(),
			StateDir:       filepath.Join(dir, "run"),
			RootDir:        filepath.Join(dir, "lib"),
			Handlers:       map[string]Handler{"runc": {Runtime: "io.containerd.runc.v2", BinaryName: "runc", Snapshotter: "overlayfs"}},
			DefaultHandler: "runc",
		},
		sb: sandbox.Record{
			ID:    "sb1",
			Phase: sandbox.PhaseReady,
			Range: &idpool.Range{Start: 1 << 20, Length: idpool.Unit},
			Pins:  ns.Pins{User: "/run/u", Network: "/run/n", IPC: "/run/i", UTS: "/run/t"},
			Spec: sandbox.Spec{
				Metadata:     sandbox.Metadata{Name: "p", Namespace: "default", UID: "u"},
				LogDirectory: filepath.Join(dir, "log"),
				Namespaces:   sandbox.Namespaces{Network: sandbox.ModePod, IPC: sandbox.ModePod, User: &sandbox.UserNamespace{}},
			},
		},
	}
	n.opts.Sandbox = func(string) (sandbox.Record, error) { return n.sb, nil }
	n.recordSandbox(t, n.sb)
	n.restart(t)
	t.Cleanup(func() { n.Close() })
	return n
}

func (n *node) recordSandbox(t *testing.T, sb sandbox.Record) {
	t.Helper()
	err := n.opts.DB.Update(func(tx *state.Tx) error {
		return state.NewBucket[sandbox.Record](sandbox.Bucket).Put(tx, sb.ID, sb)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) restart(t *testing.T) {
	t.Helper()
	if n.Manager != nil {
		n.Close()
	}
	m, err := New(n.opts)
	if err != nil {
		t.Fatal(err)
	}
	n.Manager = m
}

func containerSpec(name string) Spec {
	return Spec{Metadata: Metadata{Name: name}, Image: "busybox", LogPath: name + ".log"}
}

func (n *node) mustStart(t *testing.T, name string) string {
	t.Helper()
	id, err := n.Create(t.Context(), n.sb, containerSpec(name))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func (n *node) awaitExit(t *testing.T, id string) Record {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		rec, err := n.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		if rec.State == StateExited {
			return rec
		}
		if time.Now().After(deadline) {
			t.Fatalf("container is %s, want it exited", rec.State)
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *node) wantNothingLeft(t *testing.T) {
	t.Helper()
	if got := n.engine.left(); len(got) > 0 {
		t.Errorf("left in the engine: %q", got)
	}
	entries, err := os.ReadDir(filepath.Join(n.opts.StateDir, "containers"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left in the state directory: %v, %v", entries, err)
	}
	if got := n.table.All(); len(got) > 0 {
		t.Errorf("left in the database: %v", got)
	}
}
