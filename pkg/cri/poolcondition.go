package cri

import (
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// idPoolHasCapacity is a condition of ours: whether every segment of the id pool has a range to give. kubelet
// makes a node NotReady by CRI's own conditions only.
const idPoolHasCapacity = "IDPoolHasCapacity"

// The reasons beside it.
const (
	reasonRangesFree = "RangesFree"
	reasonExhausted  = "Exhausted"
)

// Capacity is what is left of one segment of the id pool, in ranges of 65,536 ids.
type Capacity struct {
	Segment     string
	Free, Total int
}

// poolCondition is false when a segment that has extents has nothing free. Its message tells of each.
func poolCondition(segments []Capacity) *runtimeapi.RuntimeCondition {
	c := &runtimeapi.RuntimeCondition{Type: idPoolHasCapacity, Status: true, Reason: reasonRangesFree}
	var words []string
	for _, s := range segments {
		if s.Total == 0 {
			continue
		}
		words = append(words, fmt.Sprintf("segment %s: %d of %d ranges free", s.Segment, s.Free, s.Total))
		if s.Free == 0 {
			c.Status, c.Reason = false, reasonExhausted
		}
	}
	c.Message = strings.Join(words, "; ")
	return c
}
