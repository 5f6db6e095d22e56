package idpool

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// PodUID is the UID that the API server, or kubelet for a static pod, gave the
// pod.
type PodUID string

// State is what an entry of the ledger is doing.
type State string

const (
	// StateAllocated: at least one sandbox of the pod uses the range.
	StateAllocated State = "allocated"
	// StateQuarantined: the pod's last sandbox is gone, or the reservation
	// given up, and the range rests.
	StateQuarantined State = "quarantined"
	// StateReserved: an operator keeps the range, shared by those who name it.
	StateReserved State = "reserved"
)

// Segment is the part of the ledger that a range lies in as a whole.
type Segment string

const (
	// SegmentKubelet is what kubelet draws its mappings from.
	SegmentKubelet Segment = "kubelet"
	// SegmentPool is what Acquire draws from.
	SegmentPool Segment = "pool"
	// SegmentExternal is everything else.
	SegmentExternal Segment = "external"
)

// Allocation is one entry of the ledger, as told to others.
type Allocation struct {
	Range       Range     `json:"range"`
	State       State     `json:"state"`
	Segment     Segment   `json:"segment"`
	Pod         PodUID    `json:"pod,omitempty"`         // owner, in quarantine the last one; empty for a reservation, and after one
	Sandboxes   []string  `json:"sandboxes,omitempty"`   // ids, in the order of arrival
	Reservation string    `json:"reservation,omitempty"` // name, in quarantine the last one
	Since       time.Time `json:"since"`                 // when the state was entered
	Traces      Trace     `json:"-"`                     // what keeps a quarantined range back, apart from its age
}

// record is what the bucket holds for one entry. Its key is keyOf its start.
type record struct {
	Range     Range     `json:"range"`
	State     State     `json:"state"`
	Pod       PodUID    `json:"pod,omitempty"`
	Sandboxes []string  `json:"sandboxes,omitempty"`
	Name      string    `json:"name,omitempty"`
	Since     time.Time `json:"since"`
}

const (
	rangePrefix = "range/"
	cursorKey   = "cursor"
)

// keyOf has a fixed width, so that the bucket's order is that of the ranges.
func keyOf(start uint32) string { return fmt.Sprintf(rangePrefix+"%08x", start) }

func (r *record) encode() ([]byte, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode record of range %s: %w", r.Range, err)
	}
	return value, nil
}

// decodeRecord returns the record under key, or ErrCorrupt when the value is not
// one that encode could have written there. A range outside the extents, or one
// that only a permissive claim could make, is none of its business.
func decodeRecord(key string, value []byte) (*record, error) {
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("record %q: %w: %w", key, ErrCorrupt, err)
	}
	if err := r.Range.check(); err != nil {
		return nil, fmt.Errorf("record %q: %w: %w", key, ErrCorrupt, err)
	}
	if key != keyOf(r.Range.Start) {
		return nil, fmt.Errorf("record %q holds range %s: %w", key, r.Range, ErrCorrupt)
	}
	if problem := r.problem(); problem != "" {
		return nil, fmt.Errorf("record %q: %s: %w", key, problem, ErrCorrupt)
	}
	for _, known := range []State{StateAllocated, StateQuarantined, StateReserved} {
		if r.State == known {
			r.State = known // one text for all records, not one each
		}
	}
	return &r, nil
}

// problem names the rule that the record breaks, "" for none.
func (r *record) problem() string {
	switch r.State {
	case StateAllocated:
		if r.Pod == "" || len(r.Sandboxes) == 0 {
			return "allocated to no pod or no sandbox"
		}
	case StateQuarantined:
		if (r.Pod == "") == (r.Name == "") || len(r.Sandboxes) > 0 {
			return "quarantined without a last pod or reservation, after both, or with sandboxes"
		}
	case StateReserved:
		if r.Name == "" || r.Pod != "" {
			return "reserved without a name, or by a pod"
		}
	default:
		return fmt.Sprintf("unknown state %q", r.State)
	}
	if r.State == StateAllocated && r.Name != "" {
		return "a pod's with the name of a reservation"
	}
	for i, id := range r.Sandboxes {
		if id == "" || slices.Contains(r.Sandboxes[:i], id) {
			return "a sandbox without id, or twice"
		}
	}
	return ""
}

func encodeCursor(slot int) []byte { return fmt.Appendf(nil, "%d", slot) }

func decodeCursor(value []byte) (int, error) {
	slot, err := parseID(string(value))
	if err != nil || slot >= slotCount {
		return 0, fmt.Errorf("cursor %q: %w", value, ErrCorrupt)
	}
	return int(slot), nil
}
