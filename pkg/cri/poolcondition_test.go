package cri

import "testing"

func TestPoolCondition(t *testing.T) {
	for name, test := range map[string]struct {
		segments        []Capacity
		holds           bool
		reason, message string
	}{
		"free": {
			[]Capacity{{"pool", 1, 2}, {"kubelet", 3, 3}},
			true,
			"RangesFree", "segment pool: 1 of 2 ranges free; segment kubelet: 3 of 3 ranges free",
		},
		"the pool's own": {
			[]Capacity{{"pool", 0, 2}, {"kubelet", 3, 3}},
			false,
			"Exhausted", "segment pool: 0 of 2 ranges free; segment kubelet: 3 of 3 ranges free",
		},
		"kubelet's": {
			[]Capacity{{"pool", 1, 2}, {"kubelet", 0, 3}},
			false,
			"Exhausted", "segment pool: 1 of 2 ranges free; segment kubelet: 0 of 3 ranges free",
		},
		"kubelet has no extents": {
			[]Capacity{{"pool", 1, 2}, {"kubelet", 0, 0}},
			true,
			"RangesFree", "segment pool: 1 of 2 ranges free",
		},
	} {
		c := poolCondition(test.segments)
		if c.Type != "IDPoolHasCapacity" || c.Status != test.holds || c.Reason != test.reason || c.Message != test.message {
			t.Errorf("%s: %v", name, c)
		}
	}
}
