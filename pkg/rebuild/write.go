package rebuild

import (
	"errors"
	"fmt"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// Write fills an empty database, in one transaction.
func (p Plan) Write(db *state.DB, opts idpool.Options) error {
	sandboxes, err := sandbox.OpenTable(db, nil)
	if err != nil {
		return err
	}
	containers, err := container.OpenTable(db, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *state.Tx) error {
		pool, err := idpool.Load(tx.Raw(sandbox.PoolBucket), opts)
		if err != nil {
			return err
		}
		for _, s := range p.Sandboxes {
			if err := reserve(sandboxes, tx, s.Record); err != nil {
				return err
			}
		}
		for _, c := range p.Containers {
			if err := reserve(containers, tx, c.Record); err != nil {
				return err
			}
		}
		return p.fill(pool, tx.Raw(sandbox.PoolBucket))
	})
	if err != nil {
		return fmt.Errorf("write database: %w", err)
	}
	return nil
}

func reserve[R state.Row](table *state.Table[R], tx *state.Tx, row R) error {
	holder, taken, err := table.Reserve(tx, row)
	if taken {
		return errors.Join(err, fmt.Errorf("%s and %s have the name %s", holder.Key(), row.Key(), row.Name()))
	}
	return err
}

// fill makes the ledger. A range that another pod has already stays that pod's; Notes tell of it.
func (p Plan) fill(pool *idpool.Pool, b idpool.Bucket) error {
	for _, s := range p.Sandboxes {
		if s.Range == nil {
			continue
		}
		err := sandbox.RestoreLease(pool, b, s.Record)
		if err != nil && !errors.Is(err, idpool.ErrConflict) && !errors.Is(err, idpool.ErrPodHolds) && !errors.Is(err, idpool.ErrInvalid) {
			return err
		}
	}
	for _, r := range p.Resting {
		if _, err := pool.Rest(b, idpool.UnknownPod, r.Range); err != nil {
			return err
		}
	}
	return nil
}
