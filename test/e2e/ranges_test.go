package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// rangesInUse reads the ledger from a copy of the node's database, because the daemon has the original open.
func rangesInUse(n *nodetest.Node) func(context.Context) ([]string, error) {
	return func(context.Context) ([]string, error) {
		held, err := ledger(filepath.Join(n.Daemon.Root, "state.db"))
		if err != nil {
			return nil, err
		}
		var list []string
		for _, a := range held {
			if a.State == idpool.StateAllocated {
				list = append(list, fmt.Sprintf("%v of pod %s, sandboxes %v", a.Range, a.Pod, a.Sandboxes))
			}
		}
		return list, nil
	}
}

// ledger returns every entry of the pool in a database file. A copy that a commit came across does not open;
// it is made again.
func ledger(path string) (entries []idpool.Allocation, err error) {
	for range 10 {
		entries, err = copiedLedger(path)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return entries, err
		}
	}
	return nil, err
}

func copiedLedger(path string) (entries []idpool.Allocation, err error) {
	dir, err := os.MkdirTemp("", "ledger-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	copied := filepath.Join(dir, "state.db")
	if err := os.WriteFile(copied, content, 0o600); err != nil {
		return nil, err
	}
	db, err := state.Open(state.Options{Path: copied})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.View(func(tx *state.Tx) error {
		pool, err := idpool.Load(tx.Raw(sandbox.PoolBucket), idpool.Options{})
		if err != nil {
			return err
		}
		entries = pool.List()
		return nil
	})
	return entries, err
}
