package sandbox

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/fakelabels"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
	"github.com/userns-shim/userns-shim/pkg/state"
)

type fakeHost struct {
	mu    sync.Mutex
	calls []string
	fail  string
	alive error
}

func (f *fakeHost) step(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, name)
	if f.fail == name {
		return errInjected
	}
	return nil
}

func (f *fakeHost) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(f.calls), func(c string) bool { return c != name }))
}

func (f *fakeHost) setFail(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = name
}

func (f *fakeHost) Create(_ context.Context, req ns.Request) (ns.Pins, error) {
	if err := f.step("create"); err != nil {
		return ns.Pins{}, err
	}
	pins := ns.Pins{Network: req.NetPath}
	if req.User != nil {
		pins.User = filepath.Join(req.Dir, "user")
	}
	return pins, nil
}

func (f *fakeHost) WriteSysctls(context.Context, ns.Pins, *ns.IDMap, map[string]string) error {
	return f.step("sysctls")
}

func (f *fakeHost) Remove(context.Context, string, string) error { return f.step("remove") }

func (f *fakeHost) Check(ns.Pins, *ns.IDMap) error { return f.alive }

func (f *fakeHost) Setup(context.Context, network.Pod) (network.Result, error) {
	return network.Result{IPs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}, f.step("add")
}

func (f *fakeHost) Teardown(context.Context, network.Pod) error { return f.step("del") }

type node struct {
	*Manager
	host *fakeHost
	db   *state.DB
	opts Options
}

func newNode(t *testing.T, change func(*Options)) *node {
	t.Helper()
	testkit.RequireRoot(t) // a sandbox's files are given to its pod, and /dev/shm is mounted
	dir := t.TempDir()
	db, err := state.Open(state.Options{Path: filepath.Join(dir, "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	host := &fakeHost{}
	opts := Options{
		Labels:         fakelabels.New(),
		DB:             db,
		Namespaces:     host,
		Network:        host,
		StateDir:       dir,
		BootID:         "boot-1",
		Clock:          clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0)),
		UserNamespaces: map[string]UserNamespacePolicy{"runc": UserNamespacesOptIn, "always": UserNamespacesAlways, "never": UserNamespacesNever},
		DefaultHandler: "runc",
	}
	if change != nil {
		change(&opts)
	}
	n := &node{host: host, db: db, opts: opts}
	n.restart(t)
	t.Cleanup(func() {
		for _, rec := range n.table.All() {
			if err := removeFiles(n.Paths(rec.ID)); err != nil {
				t.Error(err)
			}
		}
	})
	return n
}

func (n *node) restart(t *testing.T) {
	t.Helper()
	err := n.db.View(func(tx *state.Tx) (err error) {
		n.opts.Pool, err = idpool.Load(tx.Raw(PoolBucket), idpool.Options{Extents: []idpool.Range{{Start: 1 << 20, Length: 2 * idpool.Unit}}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n.Manager, err = New(n.opts); err != nil {
		t.Fatal(err)
	}
}

func podSpec(name string) Spec {
	return Spec{
		Metadata:   Metadata{Name: name, UID: "uid-" + name, Namespace: "default"},
		Namespaces: Namespaces{Network: ModePod, PID: ModeContainer, IPC: ModePod, User: &UserNamespace{}},
	}
}

func (n *node) mustRun(t *testing.T, spec Spec) Record {
	t.Helper()
	rec, err := n.Run(t.Context(), spec)
	if err != nil {
		t.Fatalf("Run(%s): %v", spec.Metadata.Name, err)
	}
	return rec
}
