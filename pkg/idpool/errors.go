package idpool

import (
	"errors"
	"fmt"
	"strings"
)

// What a caller can do about an error is told by these; use errors.Is.
var (
	// ErrExhausted: no range of the size is free or reclaimable. Try again
	// after a pod was removed, or enlarge the extents. See ExhaustedError.
	ErrExhausted = errors.New("id pool exhausted")

	// ErrFragmented comes beside ErrExhausted when enough ids are free, but
	// not in one run.
	ErrFragmented = errors.New("id pool fragmented")

	// ErrConflict: the range overlaps one that is in the ledger. See
	// ConflictError.
	ErrConflict = errors.New("range is taken")

	// ErrPodHolds: the pod holds another range. Acquire with that range's
	// length returns it.
	ErrPodHolds = errors.New("pod holds another range")

	// ErrForbidden: the range touches ids that no pod is given: those of the
	// host, or systemd's foreign range.
	ErrForbidden = errors.New("range touches ids that no pod is given")

	// ErrUnmappable: the range reaches id 4294967295, and the kernel refuses
	// to map it. kubelet's last slot, 0xFFFF0000, does.
	ErrUnmappable = errors.New("range cannot be mapped by the kernel")

	// ErrInvalid: the request makes no sense, whatever the state of the pool.
	ErrInvalid = errors.New("invalid range request")

	// ErrNotFound: no entry of the ledger has that name or exactly those ids.
	ErrNotFound = errors.New("the id pool has no such entry")

	// ErrInUse: what pods use, or traces are left of, cannot be given up; nor a
	// name that another reservation has.
	ErrInUse = errors.New("still in use")

	// ErrCorrupt: the bucket's records cannot be read or contradict each
	// other. The pool must be rebuilt from what runs on the node.
	ErrCorrupt = errors.New("id pool records are damaged")
)

// Remappable says whether a claim failed for a reason that another range would
// not have: the caller may Acquire instead. It is false for nil, for ErrInvalid
// and for errors of the bucket.
func Remappable(err error) bool {
	for _, target := range []error{ErrConflict, ErrPodHolds, ErrForbidden, ErrUnmappable} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// NeedsScan says whether the request may be granted after the Witness has looked
// at the node again: a range in quarantine stood in the way of which it saw traces,
// or could not tell.
func NeedsScan(err error) bool {
	var conflict *ConflictError
	if errors.As(err, &conflict) && conflict.Traces != 0 {
		return true
	}
	var traced *tracedError
	if errors.As(err, &traced) {
		return true
	}
	var exhausted *ExhaustedError
	return errors.As(err, &exhausted) && exhausted.Unknown+exhausted.Held > 0
}

// tracedError says what keeps a range in quarantine. It is an ErrInUse.
type tracedError struct{ traces Trace }

func (e *tracedError) Error() string { return fmt.Sprintf("with traces: %s: %s", e.traces, ErrInUse) }

// Unwrap makes the error an ErrInUse.
func (e *tracedError) Unwrap() error { return ErrInUse }

// ConflictError says which entry of the ledger a request overlaps. It is an
// ErrConflict.
type ConflictError struct {
	Requested Range
	Holder    Allocation
	// Traces is what keeps a quarantined holder from being reclaimed.
	Traces Trace
}

func (e *ConflictError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "range %s overlaps %s, %s", e.Requested, e.Holder.Range, e.Holder.State)
	switch {
	case e.Holder.State == StateReserved:
		fmt.Fprintf(&b, " as %q", e.Holder.Reservation)
	case e.Holder.Reservation != "":
		fmt.Fprintf(&b, " after reservation %q", e.Holder.Reservation)
	case e.Holder.State == StateQuarantined:
		fmt.Fprintf(&b, " after pod %s", e.Holder.Pod)
	default:
		fmt.Fprintf(&b, " to pod %s", e.Holder.Pod)
	}
	if len(e.Holder.Sandboxes) > 0 {
		fmt.Fprintf(&b, " (sandbox %s)", strings.Join(e.Holder.Sandboxes, ", "))
	}
	if e.Traces != 0 {
		fmt.Fprintf(&b, " with traces: %s", e.Traces)
	}
	return b.String()
}

// Unwrap makes the error an ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// ExhaustedError says why no range was found. It is an ErrExhausted, and an
// ErrFragmented too when FreeIDs would have sufficed. Counts are of the pool's
// own segment.
type ExhaustedError struct {
	WantIDs        uint64 // length asked for
	FreeIDs        uint64 // free or reclaimable, in whole units
	LargestFreeIDs uint64 // longest run of them
	Held           int    // ranges in quarantine of which traces remain
	Unknown        int    // ranges in quarantine that no scan has looked at yet
}

func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("no run of %d ids: %d free, the longest run %d; in quarantine %d ranges with traces, %d not looked at yet",
		e.WantIDs, e.FreeIDs, e.LargestFreeIDs, e.Held, e.Unknown)
}

// Unwrap makes the error an ErrExhausted, and an ErrFragmented where it is one.
func (e *ExhaustedError) Unwrap() []error {
	if e.FreeIDs >= e.WantIDs {
		return []error{ErrExhausted, ErrFragmented}
	}
	return []error{ErrExhausted}
}
