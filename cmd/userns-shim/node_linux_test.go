package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/kernel"
	"github.com/userns-shim/userns-shim/pkg/cri"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// fakeKernel answers each probe with an error, nil being a yes.
type fakeKernel struct {
	userNS, tmpfs, idMapped, overlay error
	asked                            []string // directories that the filesystem probes were for
}

func (k *fakeKernel) UserNamespaces() error         { return k.userNS }
func (k *fakeKernel) TmpfsIDMapped() error          { return k.tmpfs }
func (k *fakeKernel) CgroupMode() kernel.CgroupMode { return kernel.CgroupUnified }

func (k *fakeKernel) IDMapped(path string) error {
	k.asked = append(k.asked, "mount "+path)
	return k.idMapped
}

func (k *fakeKernel) OverlayLayersIDMapped(dir string) error {
	k.asked = append(k.asked, "overlay "+dir)
	return k.overlay
}

// fakeRuntime keeps a snapshotter's files in /snapshots/ and its name.
type fakeRuntime struct {
	features engine.RuntimeFeatures
	root     error
}

func (r *fakeRuntime) Ready(context.Context) error { return nil }

func (r *fakeRuntime) RuntimeFeatures(context.Context, string, string) (engine.RuntimeFeatures, error) {
	return r.features, nil
}

func (r *fakeRuntime) SnapshotterRoot(_ context.Context, snapshotter string) (string, error) {
	return "/snapshots/" + snapshotter, r.root
}

// machine is a node on which everything works, until a test takes something away.
type machine struct {
	kernel  *fakeKernel
	runtime *fakeRuntime
	handler config.RuntimeHandler
	cgroup2 []*mountinfo.Info
}

func newMachine() *machine {
	return &machine{
		kernel:  &fakeKernel{},
		runtime: &fakeRuntime{features: engine.RuntimeFeatures{All: &features.Features{}, IDMappedMounts: true, RecursiveROMount: true}},
		handler: config.Default().RuntimeHandlers["runc"],
	}
}

func (m *machine) node() *node {
	cfg := config.Default()
	cfg.RuntimeHandlers = map[string]config.RuntimeHandler{"runc": m.handler}
	return &node{cfg: cfg, kernel: m.kernel, engine: m.runtime, cgroup2: func() ([]*mountinfo.Info, error) { return m.cgroup2, nil }}
}

// TestHandlersReportUserNamespaces holds issue 2's rule that UserNamespaces is true only where
// configuration, OCI runtime, kernel and filesystems all can, and that crictl info says which cannot.
func TestHandlersReportUserNamespaces(t *testing.T) {
	broken := errors.New("the probe's own words")
	for _, tc := range []struct {
		name   string
		spoil  func(m *machine)
		reason string // in the verbose information, empty for none
	}{
		{"all fine", func(*machine) {}, ""},
		{"all fine for every pod", func(m *machine) { m.handler.UserNamespaces = config.UserNamespacesAlways }, ""},
		{"the policy says never", func(m *machine) { m.handler.UserNamespaces = config.UserNamespacesNever }, "userNamespaces: never"},
		{"the OCI runtime is too old", func(m *machine) { m.runtime.features.IDMappedMounts = false }, "runc does not support idmapped mounts"},
		{"the OCI runtime tells no features", func(m *machine) { m.runtime.features = engine.RuntimeFeatures{} }, "runc has no command features"},
		{"the OCI runtime gives devices away", func(m *machine) { m.runtime.features.ChownsDevices = true }, "/dev/null"},
		{"no user namespaces", func(m *machine) { m.kernel.userNS = broken }, broken.Error()},
		{"tmpfs cannot be idmapped", func(m *machine) { m.kernel.tmpfs = broken }, broken.Error()},
		{"overlayfs refuses idmapped layers", func(m *machine) { m.kernel.overlay = broken }, broken.Error()},
		{"overlayfs does, whatever plain mounts say", func(m *machine) { m.kernel.idMapped = broken }, ""},
		{"another snapshotter's filesystem cannot", func(m *machine) {
			m.handler.Snapshotter, m.kernel.idMapped = "native", broken
		}, broken.Error()},
		{"another snapshotter's filesystem can", func(m *machine) {
			m.handler.Snapshotter, m.kernel.overlay = "native", broken
		}, ""},
		{"the snapshotter is not found", func(m *machine) { m.runtime.root = broken }, "find the filesystem of snapshotter overlayfs"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine()
			tc.spoil(m)
			n := m.node()
			for _, h := range handlers(t, n) {
				if h.UserNamespaces != (tc.reason == "") || (h.NoUserNamespaces == nil) != h.UserNamespaces {
					t.Errorf("handler %q: UserNamespaces is %t, reason %v", h.Name, h.UserNamespaces, h.NoUserNamespaces)
				}
			}
			// A pod without volumes on tmpfs can have one where those cannot be idmapped.
			refused := tc.reason != "" && m.kernel.tmpfs == nil
			if err := n.checkUserNamespaces(t.Context(), "runc"); errors.Is(err, sandbox.ErrNoUserNamespaces) != refused {
				t.Errorf("a pod gets %v, refused: %t", err, refused)
			}
			if got := missingFor(t, n)["runc"]; (got == "") != (tc.reason == "") || !strings.Contains(got, tc.reason) {
				t.Errorf("crictl info says %q, want %q", got, tc.reason)
			}
		})
	}
}

// TestHandlersProbeTheSnapshottersFilesystem holds that the directory probed is where layers are.
func TestHandlersProbeTheSnapshottersFilesystem(t *testing.T) {
	for snapshotter, want := range map[string]string{"": "overlay /snapshots/overlayfs", "native": "mount /snapshots/native"} {
		m := newMachine()
		m.handler.Snapshotter = snapshotter
		handlers(t, m.node())
		if !slices.Equal(m.kernel.asked, []string{want}) {
			t.Errorf("snapshotter %q: probed %v, want %q", snapshotter, m.kernel.asked, want)
		}
	}
}

// TestHandlersHaveTheDefaultTwice holds what kubelet expects: "" for pods that name no handler, and
// the default's own name for those that do.
func TestHandlersHaveTheDefaultTwice(t *testing.T) {
	m := newMachine()
	n := m.node()
	never := m.handler
	never.UserNamespaces = config.UserNamespacesNever
	n.cfg.RuntimeHandlers["plain"] = never
	got := map[string]bool{}
	list := handlers(t, n)
	for _, h := range list {
		got[h.Name] = h.UserNamespaces
		if !h.RecursiveReadOnlyMounts {
			t.Errorf("handler %q has no recursive read-only mounts", h.Name)
		}
	}
	if len(list) != 3 || !got[""] || !got["runc"] || got["plain"] {
		t.Errorf("got %+v, want \"\" and runc with user namespaces, plain without", list)
	}
}

func handlers(t *testing.T, n *node) []cri.Handler {
	t.Helper()
	list, err := n.Handlers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// missingFor reads the verbose information as crictl does.
func missingFor(t *testing.T, n *node) map[string]string {
	t.Helper()
	data, err := json.Marshal(n.Details(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Missing map[string]string `json:"userNamespacesMissingFor"`
	}
	if err := json.Unmarshal(data, &info); err != nil {
		t.Fatal(err)
	}
	return info.Missing
}

// TestCgroupOptionsAreTheHosts: a mount of cgroup2 without them would take them from the host.
func TestCgroupOptionsAreTheHosts(t *testing.T) {
	for options, want := range map[string][]string{
		"rw,nsdelegate,memory_recursiveprot": {"nsdelegate", "memory_recursiveprot"},
		"rw,seclabel,favordynmods":           {"favordynmods"},
		"rw":                                 {},
	} {
		m := newMachine()
		m.cgroup2 = []*mountinfo.Info{{Mountpoint: "/sys/fs/cgroup", VFSOptions: options}}
		host, err := m.node().host()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(host.CgroupOptions, want) {
			t.Errorf("the host has %q, specifications repeat %q, want %q", options, host.CgroupOptions, want)
		}
	}
	// The options of the real one are read where they are.
	mounts, err := cgroup2Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if m.FSType != "cgroup2" || m.VFSOptions == "" {
			t.Errorf("taken for a mount of cgroup2: %+v", m)
		}
	}
}
