package installer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestRollbackOfTheConfiguration: one that came with an installation goes with it, so that the next attempt can bring a better
// one. The node's own stays, and so does what was installed once.
func TestRollbackOfTheConfiguration(t *testing.T) {
	n := newNode(t)
	n.fail["ready userns-shim.sock"] = errors.New("broken")
	if err := n.install(t); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("install says %v", err)
	}
	if _, err := os.Lstat(filepath.Join(n.root, ConfigPath)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the rollback the configuration is there: %v", err)
	}
	delete(n.fail, "ready userns-shim.sock")
	n.kill = 1
	if err := n.install(t); !errors.Is(err, ErrFailedBefore) {
		t.Fatalf("the next attempt: %v", err)
	}
	opts := n.options()
	opts.Retry, opts.Config = true, []byte("killed")
	if err := n.run(t, opts, (*Installer).Install); !errors.Is(err, errKilled) {
		t.Fatalf("an attempt that is killed: %v", err)
	}
	n.kill, opts.Config = 0, []byte("better")
	if err := n.run(t, opts, (*Installer).Install); err != nil || n.read(ConfigPath) != "better" {
		t.Errorf("the attempt after it: %v; the configuration is %q", err, n.read(ConfigPath))
	}
	if err := n.uninstall(t); err != nil || n.read(ConfigPath) != "better" {
		t.Errorf("uninstall: %v; the configuration is %q", err, n.read(ConfigPath))
	}
	opts.Config, n.fail["check"] = []byte("no better"), errors.New("broken")
	if err := n.run(t, opts, (*Installer).Install); !errors.Is(err, ErrRolledBack) || n.read(ConfigPath) != "better" {
		t.Errorf("a rollback on a node with a configuration: %v; it is %q", err, n.read(ConfigPath))
	}
}
