package reconcile

import (
	"fmt"
	"slices"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// TestMismatchesInPieces: pieces of any size are together what one look finds.
func TestMismatchesInPieces(t *testing.T) {
	var entries []idpool.Allocation
	var records []sandbox.Record
	record := func(id string, r *idpool.Range) {
		rec := sandbox.Record{ID: id, Range: r}
		rec.Spec.Metadata.UID = "p" + id
		records = append(records, rec)
	}
	for i := range 60 {
		a, b := fmt.Sprint("a", i), fmt.Sprint("b", i)
		entries = append(entries, idpool.Allocation{Range: slot(2 * i), State: idpool.StateAllocated, Pod: idpool.PodUID(a), Sandboxes: []string{b, a}})
		switch i % 5 {
		case 0: // neither has a record
		case 1: // one has another range, one has none
			record(a, ptr(slot(2*i+1)))
			record(b, nil)
		case 2: // a third has a range that the ledger does not give to it
			record(fmt.Sprint("c", i), ptr(slot(2*i+1)))
			fallthrough
		default: // they agree
			record(a, ptr(slot(2*i)))
			record(b, ptr(slot(2*i)))
		}
	}
	slices.Reverse(records)
	tell := func(found []mismatch) (told []string) {
		for _, m := range found {
			told = append(told, fmt.Sprint(m.place(), m.given, m.has != nil))
		}
		return told
	}
	all := tell(compareLedger(slices.Values(entries), records, place{}, 1000))
	if len(all) != 12*(2+2+1) {
		t.Fatalf("found %d mismatches: %v", len(all), all)
	}
	for size := 1; size < 70; size += 6 {
		var pieces []string
		var last place
		for {
			found := compareLedger(slices.Values(entries), records, last, size)
			pieces = append(pieces, tell(found)...)
			if len(found) < size {
				break
			}
			last = found[len(found)-1].place()
		}
		if !slices.Equal(pieces, all) {
			t.Errorf("pieces of %d are %d mismatches, not the %d in order", size, len(pieces), len(all))
		}
	}
}

// TestManyLeaks are repaired in several transactions, by one run. Those that cannot be repaired do not stand in the way of others.
func TestManyLeaks(t *testing.T) {
	w := newWorld(t)
	const leaks = repairBatch + 500
	far := func(i int) idpool.Range { // clear of ids that no pod is given
		return idpool.Range{Start: uint32(1000+i) * idpool.Unit, Length: idpool.Unit}
	}
	w.update(t, func(b idpool.Bucket) error {
		for i := range leaks {
			id := fmt.Sprint("s", i)
			if err := w.opts.Pool.Claim(b, idpool.PodUID(id), id, far(i)); err != nil {
				return err
			}
		}
		return nil
	})
	w.sandboxes.add("s0", "s0", ptr(far(0)))
	w.sandboxes.add("double", "p", ptr(far(0))) // two pods with one range
	found := w.once(t)
	if len(found) != leaks { // without s0's, with the double
		t.Fatalf("found %d leaks, want %d", len(found), leaks)
	}
	if counted, repaired := w.Counts(); counted[KindLedger] != leaks-1 || repaired[KindLedger] != leaks-1 || counted[KindRecord] != 1 || repaired[KindRecord] != 0 {
		t.Errorf("counted %v, repaired %v", counted, repaired)
	}
	for _, i := range []int{1, repairBatch - 1, repairBatch, repairBatch + 1, leaks - 1} {
		w.wantHolder(t, far(i), idpool.StateQuarantined)
	}
	w.wantHolder(t, far(0), idpool.StateAllocated, "s0")
	kept := w.Findings().Findings
	if left := slices.DeleteFunc(slices.Clone(kept), Finding.Repaired); len(left) != 1 || left[0].Sandbox != "double" || len(kept) != rememberedRepairs+1 {
		t.Errorf("%d findings are kept, %v are left, want %d and the double one", len(kept), left, rememberedRepairs+1)
	}
	if found := w.once(t); len(found) != 1 || found[0].Sandbox != "double" {
		t.Errorf("found again %v", found)
	}
}
