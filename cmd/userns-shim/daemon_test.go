package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/state"
)

func testConfig(t *testing.T) config.Config {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Root, cfg.State = filepath.Join(dir, "root"), filepath.Join(dir, "state")
	cfg.Containerd.Address = filepath.Join(dir, "containerd.sock")
	return cfg
}

// TestDaemonSaysWhyItDoesNotStart holds that the error of the part that fails arrives, whatever was built before.
func TestDaemonSaysWhyItDoesNotStart(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, cfg *config.Config)
		want  error
	}{
		{"another daemon has the database", func(t *testing.T, cfg *config.Config) { openDatabase(t, cfg.Root) }, state.ErrLocked},
		{"the root is a file", func(t *testing.T, cfg *config.Config) { writeFile(t, cfg.Root) }, syscall.ENOTDIR},
		{"the state directory is a file", func(t *testing.T, cfg *config.Config) { writeFile(t, cfg.State) }, syscall.ENOTDIR},
		{"the pool holds the host's ids", func(_ *testing.T, cfg *config.Config) { holdHostIDs(cfg) }, idpool.ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig(t)
			tc.spoil(t, &cfg)
			if d, err := newDaemon(t.Context(), cfg); d != nil || !errors.Is(err, tc.want) {
				t.Errorf("got %v, %v, want no daemon and %v", d, err, tc.want)
			}
		})
	}
}

// TestDaemonThatDoesNotStartClosesItsDatabase holds that nothing stays locked by what failed later.
func TestDaemonThatDoesNotStartClosesItsDatabase(t *testing.T) {
	cfg := testConfig(t)
	holdHostIDs(&cfg)
	if _, err := newDaemon(t.Context(), cfg); err == nil {
		t.Fatal("a daemon starts with a pool of the host's ids")
	}
	openDatabase(t, cfg.Root)
}

func holdHostIDs(cfg *config.Config) {
	cfg.IDPool.Extents = []config.Extent{{Start: 0, Length: idpool.Unit}}
}

// openDatabase opens the database of a root until the test ends.
func openDatabase(t *testing.T, root string) {
	t.Helper()
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := state.Open(state.Options{Path: filepath.Join(root, "state.db"), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

func writeFile(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
