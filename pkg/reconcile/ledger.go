package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
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

// place orders mismatches. The zero value is before all.
type place struct {
	start   uint32
	sandbox string
}

func (m *mismatch) place() place {
	if m.given != nil {
		return place{m.given.Range.Start, m.sandbox}
	}
	return place{m.has.Range.Start, m.sandbox}
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.start, o.start), cmp.Compare(p.sandbox, o.sandbox))
}

// compareLedger returns the first mismatches after a place, in order, and no more than limit. Entries come in the order of
// ids, each with its sandboxes: of a ledger of which nothing is right it need not hold all at once.
func compareLedger(entries iter.Seq[idpool.Allocation], records []sandbox.Record, after place, limit int) []mismatch {
	left := make(map[string]*sandbox.Record, len(records)) // of which no entry was seen
	for i := range records {
		left[records[i].ID] = &records[i]
	}
	var found []mismatch
	note := func(m mismatch) {
		if m.place().compare(after) > 0 {
			found = append(found, m)
		}
	}
	for e := range entries {
		enough := len(found) >= limit
		for _, id := range e.Sandboxes {
			rec := left[id]
			delete(left, id)
			if rec != nil && rec.Range == nil {
				rec = nil
			}
			if !enough && (rec == nil || *rec.Range != e.Range) {
				given := e
				note(mismatch{sandbox: id, given: &given, has: rec})
			}
		}
	}
	for id, rec := range left {
		if rec.Range != nil {
			note(mismatch{sandbox: id, has: rec})
		}
	}
	slices.SortFunc(found, func(a, b mismatch) int { return a.place().compare(b.place()) })
	return found[:min(len(found), limit)]
}

func (r *Reconciler) mismatches(after place, limit int) []mismatch {
	return compareLedger(r.opts.Pool.All(), r.opts.Sandboxes.All(), after, limit)
}

// errNothing rolls back a transaction that has changed nothing.
var errNothing = errors.New("nothing to change")

// repairBatch bounds a transaction that repairs the ledger: of every page that one changes the database keeps a copy in memory.
const repairBatch = 4096

// ledger compares and repairs. Outside of a transaction, one that is under way shows in the ledger already and not in the
// records; so what looks wrong is compared again where none is open.
func (r *Reconciler) ledger() ([]Finding, error) {
	var found []Finding
	var last place
	for len(r.mismatches(last, 1)) > 0 {
		batch, repaired, err := r.repairBatch(last)
		if err != nil {
			return found, fmt.Errorf("repair the ledger: %w", err)
		}
		found = append(found, repaired...)
		if len(batch) < repairBatch {
			break
		}
		last = batch[len(batch)-1].place()
	}
	return found, nil
}

// repairBatch repairs what it finds after a place, in one transaction.
func (r *Reconciler) repairBatch(after place) (batch []mismatch, found []Finding, err error) {
	err = r.opts.DB.Update(func(tx *state.Tx) error {
		changed := false
		batch = r.mismatches(after, repairBatch)
		for _, m := range batch {
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
		return nil, nil, err
	}
	return batch, found, nil
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
