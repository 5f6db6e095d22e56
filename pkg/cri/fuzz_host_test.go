package cri

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
)

// fuzzHost stands in for the kernel's namespaces, for CNI and for pods' first processes.
type fuzzHost struct {
	mu     sync.Mutex
	things map[string]bool          // "network x", "netns x", ...: what left reports
	ended  map[string]chan struct{} // of processes, by sandbox
}

func newFuzzHost() *fuzzHost {
	return &fuzzHost{things: map[string]bool{}, ended: map[string]chan struct{}{}}
}

func (h *fuzzHost) left() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.things))
}

func (h *fuzzHost) set(thing string, there bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if there {
		h.things[thing] = true
	} else {
		delete(h.things, thing)
	}
}

// Create makes files where the pins would be. The network namespace is the test's own, so that stats can
// read interfaces.
func (h *fuzzHost) Create(_ context.Context, req ns.Request) (ns.Pins, error) {
	if err := os.MkdirAll(req.Dir, 0o711); err != nil {
		return ns.Pins{}, err
	}
	var pins ns.Pins
	for name, pin := range map[string]*string{"user": &pins.User, "ipc": &pins.IPC, "uts": &pins.UTS} {
		if name == "user" && req.User == nil || name == "ipc" && !req.IPC || name == "uts" && !req.UTS {
			continue
		}
		*pin = filepath.Join(req.Dir, name)
		if err := os.WriteFile(*pin, nil, 0o600); err != nil {
			return ns.Pins{}, err
		}
	}
	if req.Network {
		pins.Network = "/proc/self/ns/net"
		h.set("netns "+req.NetPath, true)
	}
	return pins, nil
}

func (h *fuzzHost) WriteSysctls(context.Context, ns.Pins, *ns.IDMap, map[string]string) error {
	return nil
}

func (h *fuzzHost) Remove(_ context.Context, dir, netPath string) error {
	var errs []error
	for _, path := range []string{filepath.Join(dir, "user"), filepath.Join(dir, "ipc"), filepath.Join(dir, "uts"), dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	h.set("netns "+netPath, false)
	return errors.Join(errs...)
}

func (h *fuzzHost) Check(ns.Pins, *ns.IDMap) error { return nil }

func (h *fuzzHost) Setup(_ context.Context, pod network.Pod) (network.Result, error) {
	h.set("network "+pod.ID, true)
	return network.Result{IPs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}, nil
}

func (h *fuzzHost) Teardown(_ context.Context, pod network.Pod) error {
	h.set("network "+pod.ID, false)
	return nil
}

// fuzzProcess is the process of a shared PID namespace.
type fuzzProcess struct{ host *fuzzHost }

func (p fuzzProcess) Ready() error { return nil }

func (p fuzzProcess) Start(_ context.Context, rec sandbox.Record) (int, error) {
	p.host.set("process "+rec.ID, true)
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.host.ended[rec.ID] = make(chan struct{})
	return 44, nil
}

func (p fuzzProcess) Check(sandbox.Record) error { return nil }

func (p fuzzProcess) Wait(ctx context.Context, rec sandbox.Record) error {
	p.host.mu.Lock()
	ended := p.host.ended[rec.ID]
	p.host.mu.Unlock()
	if ended == nil {
		return nil
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p fuzzProcess) Stop(_ context.Context, rec sandbox.Record) error {
	p.host.set("process "+rec.ID, false)
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	if ended := p.host.ended[rec.ID]; ended != nil {
		close(ended)
		delete(p.host.ended, rec.ID)
	}
	return nil
}

// fuzzLabels is a host without SELinux.
type fuzzLabels struct{}

func (fuzzLabels) Resolve(want *ocispec.SELinux, _ string) (ocispec.SELinuxLabels, error) {
	_, err := ocispec.SELinuxOptions(want)
	return ocispec.SELinuxLabels{}, err
}
func (fuzzLabels) Reserve(string) error         { return nil }
func (fuzzLabels) Release(string)               {}
func (fuzzLabels) Relabel(string, string) error { return nil }

// fuzzNode is ready for everything.
type fuzzNode struct{}

func (fuzzNode) RuntimeReady(context.Context) error { return nil }
func (fuzzNode) NetworkReady(context.Context) error { return nil }
func (fuzzNode) Handlers(context.Context) ([]Handler, error) {
	return []Handler{{Name: "", UserNamespaces: true}, {Name: "runc", UserNamespaces: true}}, nil
}
func (fuzzNode) SystemdCgroup() bool         { return false }
func (fuzzNode) Details(context.Context) any { return map[string]string{} }
