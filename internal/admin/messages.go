package admin

import "time"

// Segment is one part of the pool. Counts are of ranges of 65,536 ids.
type Segment struct {
	Name string `json:"name"` // "kubelet", "pool" or "external"
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
	Pod          string    `json:"pod,omitempty"`
	PodNamespace string    `json:"podNamespace,omitempty"`
	PodName      string    `json:"podName,omitempty"`
	Sandboxes    []string  `json:"sandboxes,omitempty"`
	Reservation  string    `json:"reservation,omitempty"`
	Since        time.Time `json:"since"` // when the state began
}

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
}
