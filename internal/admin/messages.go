package admin

import (
	"errors"
	"time"
)

// Extent is a run of host ids.
type Extent struct {
	Start  uint32 `json:"start"`
	Length uint32 `json:"length"`
}

// Segment is one part of the pool. Counts are of ranges of 65,536 ids.
type Segment struct {
	Name string `json:"name"` // "kubelet", "pool" or "external"
	// Extents are what the segment draws from.
	Extents []Extent `json:"extents,omitempty"`
	// Capacity is the sum of the next four; it is 0 for external, which has no extents.
	Capacity    int `json:"capacity"`
	Free        int `json:"free"`
	Allocated   int `json:"allocated"`
	Quarantined int `json:"quarantined"`
	Reserved    int `json:"reserved"`
	// Resting is the part of Free that only waits for its minimum age.
	Resting int `json:"resting"`
	// LargestFreeIDs is the longest run of free ids.
	LargestFreeIDs uint64 `json:"largestFreeIds"`
	// PredictedEmptySeconds is when nothing is free any more if it goes on as of late; missing where
	// nothing says so.
	PredictedEmptySeconds *int64 `json:"predictedEmptySeconds,omitempty"`
}

// PoolStatus answers GET /v1/pool/status.
type PoolStatus struct {
	Segments []Segment `json:"segments"`
}

// Range answers, in a list, GET /v1/pool/ranges.
type Range struct {
	Start   uint32 `json:"start"`
	Length  uint32 `json:"length"`
	State   string `json:"state"`   // allocated, quarantined or reserved
	Segment string `json:"segment"` // as in Segment.Name
	// Pod is the UID of the pod that has or had the range; its namespace and name are known
	// while it has a sandbox.
	Pod          string   `json:"pod,omitempty"`
	PodNamespace string   `json:"podNamespace,omitempty"`
	PodName      string   `json:"podName,omitempty"`
	Sandboxes    []string `json:"sandboxes,omitempty"`
	Reservation  string   `json:"reservation,omitempty"`
	// UsedBy are the pods that share a reservation, as namespace/name.
	UsedBy []string  `json:"usedBy,omitempty"`
	Since  time.Time `json:"since"` // when the state began
	// Traces are what keeps a quarantined range back apart from its age: namespace, credentials, layers, unknown.
	Traces []string `json:"traces,omitempty"`
}

// Leak is a range about which the ledger, the records and the node disagree.
type Leak struct {
	// Kind is ledger, record, pin, process, layer or container, after where it was found.
	Kind string `json:"kind"`
	// Start and Length are 0 where the ids are not known.
	Start   uint32 `json:"start"`
	Length  uint32 `json:"length"`
	Pod     string `json:"pod,omitempty"` // UID
	Sandbox string `json:"sandbox,omitempty"`
	Found   string `json:"found"` // what was found, and where
	// Repair is what was done, and Remedy what a person can do; one of them is empty.
	Repair string    `json:"repair,omitempty"`
	Remedy string    `json:"remedy,omitempty"`
	Since  time.Time `json:"since"`
}

// Leaks answers GET /v1/pool/leaks with what the last look found, and POST of the same after a look now.
type Leaks struct {
	Began time.Time `json:"began"` // zero before the first look
	Took  string    `json:"took"`
	Leaks []Leak    `json:"leaks"`
	// Error is why the look did not come to its end.
	Error string `json:"error,omitempty"`
}

// Severities of findings, the worst first. Ids that two have at once, or may have soon, are an error; what can come to that, a
// warning; what was found and is well, info.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
	SeverityInfo    = "info"
)

// Finding is something about the pool that an operator should know.
type Finding struct {
	Severity string `json:"severity"`
	// Code is the same for findings of one sort: foreign-KIND, leak-KIND, or a word for the configuration.
	Code    string `json:"code"`
	Start   uint32 `json:"start,omitempty"`
	Length  uint32 `json:"length,omitempty"` // 0 where no ids are meant
	Pod     string `json:"pod,omitempty"`    // UID
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// Check answers GET /v1/pool/check with what was found last, and POST of the same after looking now.
type Check struct {
	Scanned  time.Time `json:"scanned"`  // when foreign owners were last looked for, zero before the first time
	Compared time.Time `json:"compared"` // when leaked ranges were, likewise
	Findings []Finding `json:"findings"`
}

// Reservation is the body of POST /v1/pool/reservations.
type Reservation struct {
	Name   string `json:"name"`
	Start  uint32 `json:"start"`
	Length uint32 `json:"length"`
}

// Release is the body of POST /v1/pool/release: a reservation by its name, or else a range in quarantine.
type Release struct {
	Name   string `json:"name,omitempty"`
	Start  uint32 `json:"start,omitempty"`
	Length uint32 `json:"length,omitempty"`
	// Force releases a range in quarantine although traces are left.
	Force bool `json:"force,omitempty"`
}

// Errors of a Pool that have a status of their own; anything else is the daemon's failure.
var (
	ErrInvalid  = errors.New("invalid request")
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("in use")
)

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

// refused is an error in somebody's words, of one of the kinds above.
type refused struct {
	text string
	kind error
}

func (e refused) Error() string { return e.text }
func (e refused) Unwrap() error { return e.kind }

// Refuse gives an error one of the kinds above, and keeps its words.
func Refuse(kind, err error) error { return refused{err.Error(), kind} }
