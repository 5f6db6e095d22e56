package engine

import (
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/image"
)

// TestUsageOfABigLayerIsReadLessOften: kubelet asks every ten seconds, and a layer may take that long to be summed up.
func TestUsageOfABigLayerIsReadLessOften(t *testing.T) {
	for _, tc := range []struct {
		name      string
		age, took time.Duration
		constant  bool
		want      bool
	}{
		{"just read", time.Second, 0, false, true},
		{"old", 11 * time.Second, 0, false, false},
		{"took five seconds", 40 * time.Second, 5 * time.Second, false, true},
		{"took five seconds and is old", 51 * time.Second, 5 * time.Second, false, false},
		{"of an image", time.Hour, 0, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, key := newUsageCache(), usageKey{"overlayfs", "a"}
			c.put(key, snapshotUsage{Usage: image.Usage{At: time.Now().Add(-tc.age)}, constant: tc.constant, took: tc.took})
			if _, ok := c.get(key); ok != tc.want {
				t.Errorf("it is good still: %t, want %t", ok, tc.want)
			}
		})
	}
}
