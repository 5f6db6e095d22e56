package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/config"
)

// TestDoctorTellsOfALostDatabase: with records of pods and no database the daemon refuses to start, so doctor must not say that it makes
// one at its first start.
func TestDoctorTellsOfALostDatabase(t *testing.T) {
	cfg := config.Default()
	cfg.Root, cfg.State = t.TempDir(), t.TempDir()
	path := databasePath(cfg.Root)
	if err := checkDatabase(cfg, path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the first start: %v, want that there is none", err)
	}
	dir := recordsDir(cfg.State, "sandboxes")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkDatabase(cfg, path); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "pool rebuild") {
		t.Errorf("with a record left: %v, want that the database is gone and what to do", err)
	}
}
