package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// databasePath is where the daemon's database is.
func databasePath(root string) string { return filepath.Join(root, "state.db") }

// recordsDir holds what the database says of a kind of thing once more, for as long as the node is up.
func recordsDir(stateDir, kind string) string { return filepath.Join(stateDir, "records", kind) }

func (d *daemon) mirror(kind string) (*state.Mirror, error) {
	return state.OpenMirror(recordsDir(d.cfg.State, kind), func(err error) {
		klog.Background().Error(err, "pool rebuild would not know of the latest change")
	})
}

// checkLost refuses to begin with an empty database where another one was in use since the node came up: the pods that it knew
// would run on, and their ids would be given to others.
func checkLost(cfg config.Config) error {
	path := databasePath(cfg.Root)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := recordsDir(cfg.State, "sandboxes")
	rows, damaged, err := state.ReadMirror[sandbox.Record](dir)
	if err != nil {
		return err
	}
	if n := len(rows) + len(damaged); n > 0 {
		return fmt.Errorf("database %s is gone, and %s tells of %d pods that it had: `userns-shim pool rebuild` makes it again without stopping them; "+
			"removing %s makes userns-shim forget them", path, dir, n, filepath.Dir(dir))
	}
	return nil
}
