package nodetest

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit"
)

// cleanupTimeout bounds each cleanup, which gets a context of its own.
const cleanupTimeout = 60 * time.Second

// Tools returns the directory of the programs that tests run. The test is skipped without root, and fails
// as root where they have not been built.
func Tools(t testing.TB) labnode.Tools {
	t.Helper()
	testkit.RequireRoot(t)
	for _, name := range []string{"containerd-shim-runc-v2", "runc", "ctr", "cni/bridge", "cni/host-local", "cni/portmap", "cni/firewall"} {
		testkit.RequireBin(t, name)
	}
	return labnode.Tools(filepath.Dir(testkit.RequireBin(t, "containerd")))
}

// StartContainerd starts a containerd in the test's own namespaces, so that mounts which the test makes are
// seen by its shims. runc's state directory and the cgroups are then shared with other tests: give containers
// random ids and put their cgroups below /<base name of the containerd's directory>, which is removed with
// the directory when the test ends. It and all its shims and containers are killed first.
func StartContainerd(t testing.TB) *labnode.Containerd {
	t.Helper()
	tools := Tools(t)
	// t.TempDir is too long for a unix socket.
	dir, err := os.MkdirTemp("/tmp", "uslc-")
	if err != nil {
		t.Fatal(err)
	}
	c, err := labnode.StartContainerd(t.Context(), labnode.ContainerdOptions{Tools: tools, Dir: dir})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if c != nil {
			if err := c.Close(ctx); err != nil {
				t.Errorf("close containerd: %v", err)
			}
		}
		if err := errors.Join(labnode.RemoveCgroups(filepath.Base(dir)), labnode.RemoveDir(dir)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	showLog(t, "containerd", c.Log)
	return c
}

// Registry is a loopback registry with the whole catalogue in it.
type Registry struct {
	*labimage.Registry
	CertsDir string            // hosts.toml directories that lead to it
	Digests  map[string]string // by name, such as labimage.Demo
}

// StartRegistry serves the catalogue until the test ends.
func StartRegistry(t testing.TB) *Registry {
	t.Helper()
	registry, box := serveNothing(t, nil)
	digests, err := registry.PushAll(t.Context(), box)
	if err != nil {
		t.Fatal(err)
	}
	certs := t.TempDir()
	if err := labimage.WriteHosts(certs, registry.Addr(), registry.Addr()); err != nil {
		t.Fatal(err)
	}
	return &Registry{Registry: registry, CertsDir: certs, Digests: digests}
}

// ServeDemo serves the demo image under a name until the test ends. A nil listener is a new one on loopback.
func ServeDemo(t testing.TB, listener net.Listener, name string) *labimage.Registry {
	t.Helper()
	registry, box := serveNothing(t, listener)
	img, err := labimage.Build(labimage.Catalogue(box)[labimage.Demo])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Push(t.Context(), name, img); err != nil {
		t.Fatal(err)
	}
	return registry
}

// showLog shows what is added to a log until the test ends, the last of it, if the test fails.
func showLog(t testing.TB, name, path string) {
	t.Helper()
	var start int64
	if info, err := os.Stat(path); err == nil {
		start = info.Size()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, labnode.LogTailFrom(path, start))
		}
	})
}

// serveNothing starts an empty registry, which ends with the test, and finds the program that the catalogue's images run.
func serveNothing(t testing.TB, listener net.Listener) (registry *labimage.Registry, box labimage.Box) {
	t.Helper()
	registry, err := labimage.NewRegistry(listener)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Close(); err != nil {
			t.Errorf("close registry: %v", err)
		}
	})
	if box, err = labimage.FindBox(t.Context()); err != nil {
		t.Fatal(err)
	}
	return registry, box
}
