package idpool

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Bucket is the pool's part of the caller's open transaction. After an error
// from it, or from a method that was given it, the transaction must be rolled
// back.
type Bucket interface {
	// Get returns nil for a key that is not there.
	Get(key string) ([]byte, error)
	Put(key string, value []byte) error
	// Delete of a key that is not there is no error.
	Delete(key string) error
	// ForEach stops at fn's first error and returns it.
	ForEach(fn func(key string, value []byte) error) error
	// OnRollback registers fn to run when the transaction does not commit, in
	// the reverse order of registration, before another one may write.
	OnRollback(fn func())
}

// Pool is the ledger. Methods that take a Bucket write and must run one
// transaction after the other, which the database's own lock ensures; all others
// may run at any time beside them and see what is written but not committed yet.
type Pool struct {
	claims  Claims
	age     time.Duration
	witness Witness
	clock   clock.PassiveClock

	reviewing sync.Mutex // held while Review works; before mu

	mu       sync.RWMutex
	table    *table // its extents never change and need no lock
	cursor   int    // slot from which the next search starts
	counters Counters
}

// Load returns the pool that the bucket's records describe; an empty bucket is
// an empty pool. b may belong to a read-only transaction, and is not kept.
//
// Records that contradict the options, because extents or policy changed while
// pods live, are kept: see Findings. Records that cannot be read or contradict
// each other are ErrCorrupt, extents without a usable range are ErrInvalid.
func Load(b Bucket, o Options) (*Pool, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("load id pool: %w", err)
	}
	t, err := newTable(o.Extents, o.KubeletExtents)
	if err != nil {
		return nil, fmt.Errorf("load id pool: %w", err)
	}
	p := &Pool{claims: o.Claims, age: o.QuarantineAge, witness: o.Witness, clock: o.Clock, table: t}
	records, cursor, err := readBucket(b)
	if err != nil {
		return nil, fmt.Errorf("load id pool: %w", err)
	}
	p.cursor = cursor
	if err := p.fill(records); err != nil {
		return nil, fmt.Errorf("load id pool: %w", err)
	}
	return p, nil
}

// readBucket returns all records and the cursor. Keys that it does not know
// belong to a later version and are left alone.
func readBucket(b Bucket) (records []*record, cursor int, err error) {
	err = b.ForEach(func(key string, value []byte) error {
		switch {
		case key == cursorKey:
			cursor, err = decodeCursor(value)
			return err
		case strings.HasPrefix(key, rangePrefix):
			r, err := decodeRecord(key, value)
			records = append(records, r)
			return err
		}
		return nil
	})
	return records, cursor, err
}

// fill puts the records into the empty table.
func (p *Pool) fill(records []*record) error {
	now := p.clock.Now()
	var errs []error
	for _, r := range records {
		// Not in the future, where the clock was set back before; and with now's monotonic reading, so that it may be set back later.
		r.Since = now.Add(min(r.Since.Sub(now), 0))
		e := p.newEntry(*r)
		if err := p.table.contradiction(e); err != nil {
			errs = append(errs, err)
			continue
		}
		p.table.insert(e)
	}
	return errors.Join(errs...)
}

// Lookup returns the entry that the sandbox uses.
func (p *Pool) Lookup(sandbox string) (Allocation, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.tellLocked(p.table.bySandbox[sandbox])
}

// OfPod returns the range that the pod holds. One that rests in quarantine after
// the pod is not held.
func (p *Pool) OfPod(pod PodUID) (Allocation, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.tellLocked(p.table.byPod[pod])
}

// Holder returns the entry that the host id belongs to.
func (p *Pool) Holder(id uint32) (Allocation, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.tellLocked(p.table.at(id))
}

// Extents returns what the segment draws from, merged; none for SegmentExternal.
func (p *Pool) Extents(segment Segment) []Range {
	switch segment {
	case SegmentPool:
		return slices.Clone(p.table.extents)
	case SegmentKubelet:
		return slices.Clone(p.table.kubelet)
	}
	return nil
}

// Len returns how many entries there are.
func (p *Pool) Len() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.table.entries.Len()
}

// List returns all entries, ordered by their first id.
func (p *Pool) List() []Allocation { return slices.Collect(p.All()) }

// All yields the entries that there are when it is ranged over, ordered by their
// first id. One at a time, they need no memory for 65,534.
func (p *Pool) All() iter.Seq[Allocation] {
	return func(yield func(Allocation) bool) {
		for _, e := range p.entries() {
			if !yield(p.tell(e)) {
				return
			}
		}
	}
}

// entries returns all entries, ordered by their first id. They never change, so
// the lock is not held while a caller walks through them.
func (p *Pool) entries() []*entry {
	p.mu.RLock()
	var entries []*entry
	p.table.all(func(e *entry) bool {
		entries = append(entries, e)
		return true
	})
	p.mu.RUnlock()
	return entries
}

func (p *Pool) tellLocked(e *entry) (Allocation, bool) {
	if e == nil {
		return Allocation{}, false
	}
	return p.tell(e), true
}

func (p *Pool) tell(e *entry) Allocation {
	return Allocation{
		Range:       e.Range,
		State:       e.State,
		Segment:     e.segment(),
		Pod:         e.Pod,
		Sandboxes:   slices.Clone(e.Sandboxes),
		Reservation: e.Name,
		Since:       e.Since,
		Traces:      e.traces(),
	}
}

// rested says whether e has been in quarantine for the minimum age.
func (p *Pool) rested(e *entry) bool { return p.clock.Since(e.Since) >= p.age }
