package reconcile

import (
	"errors"
	"fmt"
	"slices"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// mismatch is a sandbox about whose range ledger and records disagree.
type mismatch struct {
	sandbox string
	// given is the entry that the ledger has for the sandbox, nil for none.
	given *idpool.Allocation
	// has is the sandbox's record where it has a range, nil where it has none or is not there.
	has *sandbox.Record
}

// compareLedger returns what ledger and records disagree about, in the order of ids.
func compareLedger(entries []idpool.Allocation, records []sandbox.Record) []mismatch {
	given := map[string]*idpool.Allocation{}
	for _, e := range entries {
		for _, id := range e.Sandboxes {
			given[id] = &e
		}
	}
	var found []mismatch
	for _, rec := range records {
		e := given[rec.ID]
		delete(given, rec.ID)
		switch {
		case e == nil && rec.Range == nil:
		case rec.Range == nil:
			found = append(found, mismatch{sandbox: rec.ID, given: e})
		case e == nil || e.Range != *rec.Range:
			found = append(found, mismatch{sandbox: rec.ID, given: e, has: &rec})
		}
	}
	for id, e := range given {
		found = append(found, mismatch{sandbox: id, given: e})
	}
	slices.SortFunc(found, func(a, b mismatch) int {
		if a.sandbox < b.sandbox {
			return -1
		}
		return 1
	})
	return found
}

// errNothing rolls back a transaction that has changed nothing.
var errNothing = errors.New("nothing to change")

// ledger compares and repairs. Outside of a transaction, one that is under way shows in the ledger already and not in the
// records; so what looks wrong is compared again where none is open.
func (r *Reconciler) ledger() ([]Finding, error) {
	if len(compareLedger(r.opts.Pool.List(), r.opts.Sandboxes.All())) == 0 {
		return nil, nil
	}
	var found []Finding
	err := r.opts.DB.Update(func(tx *state.Tx) error {
		found = nil
		changed := false
		for _, m := range compareLedger(r.opts.Pool.List(), r.opts.Sandboxes.All()) {
			fs, err := r.repairLedger(tx.Raw(sandbox.PoolBucket), m)
			if err != nil {
				return err
			}
			found = append(found, fs...)
			changed = changed || slices.ContainsFunc(fs, Finding.Repaired)
		}
		if !changed {
			return errNothing
		}
		return nil
	})
	if err != nil && !errors.Is(err, errNothing) {
		return nil, fmt.Errorf("repair the ledger: %w", err)
	}
	return found, nil
}

// repairLedger makes the ledger say what the records say.
func (r *Reconciler) repairLedger(b idpool.Bucket, m mismatch) ([]Finding, error) {
	var found []Finding
	if e := m.given; e != nil {
		if err := r.opts.Pool.Release(b, m.sandbox); err != nil {
			return nil, err
		}
		f := Finding{
			Kind: KindLedger, Range: e.Range, Pod: e.Pod, Sandbox: m.sandbox,
			Found:  "the ledger gives it to a sandbox that has no record",
			Repair: "into quarantine",
		}
		if m.has != nil {
			f.Found = fmt.Sprintf("the ledger gives it to a sandbox whose record has %s", m.has.Range)
		}
		if len(e.Sandboxes) > 1 || e.State == idpool.StateReserved {
			f.Repair = "the sandbox was taken from its users"
		}
		found = append(found, f)
	}
	if m.has == nil {
		return found, nil
	}
	f := Finding{
		Kind: KindRecord, Range: *m.has.Range, Pod: idpool.PodUID(m.has.Spec.Metadata.UID), Sandbox: m.sandbox,
		Found: "the sandbox has it and the ledger does not say so", Repair: "into the ledger",
	}
	err := sandbox.RestoreLease(r.opts.Pool, b, *m.has)
	switch {
	case errors.Is(err, idpool.ErrConflict) || errors.Is(err, idpool.ErrPodHolds) || errors.Is(err, idpool.ErrInvalid):
		f.Found, f.Repair = fmt.Sprintf("%s: %v", f.Found, err), ""
		f.Remedy = "two pods share these ids: remove one of them"
	case err != nil:
		return nil, err
	}
	return append(found, f), nil
}
