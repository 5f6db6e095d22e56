package idpool

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/utils/clock"
)

// Claims is the policy for mappings that others chose.
type Claims string

const (
	// ClaimsStrict takes aligned multiples of Unit that touch no forbidden id.
	ClaimsStrict Claims = "strict"
	// ClaimsPermissive takes whatever the kernel maps: any start and length,
	// the host's own ids included. Conformance suites need it.
	ClaimsPermissive Claims = "permissive"
)

// DefaultQuarantineAge is the least time that a released range rests.
const DefaultQuarantineAge = 5 * time.Minute

// Options configure a Pool. The zero value is an ordinary node's.
type Options struct {
	// KubeletExtents are what kubelet draws from; nil means
	// DefaultKubeletExtents. Where they meet Extents, the pool's own win: such
	// ids count as the pool's and Findings says so.
	KubeletExtents []Range
	// Extents are what Acquire draws from; empty means DefaultExtents. Slots of
	// Unit ids that an extent does not cover as a whole stay unused, and so do
	// HostRange, ForeignRange and the last slot of uid_t.
	Extents []Range
	// Claims is ClaimsStrict when empty.
	Claims Claims
	// QuarantineAge is condition (d) of quarantine; 0 means
	// DefaultQuarantineAge, less than 0 means none.
	QuarantineAge time.Duration
	// Witness tells conditions (a) to (c) of quarantine. Nil trusts the caller
	// to call Release only when no process, credential and writable layer of
	// the pod is left.
	Witness Witness
	// Clock is the wall clock when nil. Only ages in quarantine depend on it.
	Clock clock.PassiveClock
}

// withDefaults returns the options with every empty field filled, and ErrInvalid
// for extents or a policy that no pool can have.
func (o Options) withDefaults() (Options, error) {
	if o.KubeletExtents == nil {
		o.KubeletExtents = DefaultKubeletExtents()
	}
	if len(o.Extents) == 0 {
		o.Extents = DefaultExtents()
	}
	if o.Claims == "" {
		o.Claims = ClaimsStrict
	}
	if o.QuarantineAge == 0 {
		o.QuarantineAge = DefaultQuarantineAge
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Claims != ClaimsStrict && o.Claims != ClaimsPermissive {
		return o, fmt.Errorf("claims policy %q: %w", o.Claims, ErrInvalid)
	}
	var errs []error
	for _, e := range slices.Concat(o.Extents, o.KubeletExtents) {
		if err := e.check(); err != nil {
			errs = append(errs, fmt.Errorf("extent %s: %w", e, err))
		}
	}
	return o, errors.Join(errs...)
}

// merge returns the extents sorted, with those joined that touch or overlap.
func merge(extents []Range) []Range {
	sorted := slices.Clone(extents)
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Compare(a.Start, b.Start) })
	var merged []Range
	for _, e := range sorted {
		if n := len(merged); n > 0 && uint64(e.Start) <= merged[n-1].End() {
			last := &merged[n-1]
			// Length is 32 bits: only all of uid_t would not fit, and the
			// host's ids are of no use to a pool.
			end := max(last.End(), e.End())
			last.Length = uint32(min(end-uint64(last.Start), Invalid))
			continue
		}
		merged = append(merged, e)
	}
	return merged
}

// usable returns the slots that lie wholly in one of the merged extents and that
// a pod may be given.
func usable(merged []Range) *bitmap {
	m := new(bitmap)
	for _, e := range merged {
		first := (uint64(e.Start) + Unit - 1) / Unit
		for slot := first; (slot+1)*Unit <= e.End(); slot++ {
			m.set(int(slot))
		}
	}
	for _, never := range []int{0, foreignSlot, slotCount - 1} {
		m.clear(never)
	}
	return m
}
