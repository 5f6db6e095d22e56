package e2e

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestPermissiveClaims: any mapping that the kernel takes, in any place and of any length. Two pods with the same ids stay a
// conflict.
func TestPermissiveClaims(t *testing.T) {
	t.Parallel()
	bothPolicies(t, labnode.DaemonOptions{Claims: "permissive", Quarantine: "0s"}, func(t *testing.T, n claimNode) {
		base := n.external(4).Start
		for _, tc := range []struct {
			name string
			ids  labnode.Extent
		}{
			{"not aligned", labnode.Extent{Start: base + 12345, Length: 65536}},
			{"one id", labnode.Extent{Start: base + 5*65536, Length: 1}},
			{"a thousand", labnode.Extent{Start: base + 3*65536, Length: 1000}},
			{"all that the demo image needs", labnode.Extent{Start: base + 3*65536 + 1000, Length: 2001}},
			{"up to the end of kubelet's segment and beyond", labnode.Extent{Start: slot(n.Kubelet(), 23).Start + 5, Length: 65536}},
			{"the host's", labnode.Extent{Start: 0, Length: 65536}},
			{"below all extents", labnode.Extent{Start: 70000, Length: 30000}},
			{"below the last", labnode.Extent{Start: 0xFFFF0000, Length: 65535}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				n.wantGranted(t, tc.ids).Remove(t)
				// What the host's own processes have is no trace of the pod's.
				if got := n.RunPod(t, nodetest.MappingOf(tc.ids)).IDs(t); got != tc.ids {
					t.Errorf("the next pod has %+v, want the same %+v", got, tc.ids)
				}
			})
		}
		holder := n.wantGranted(t, labnode.Extent{Start: base + 65000, Length: 1000})
		for name, ids := range map[string]labnode.Extent{
			"the same":            {Start: base + 65000, Length: 1000},
			"one id":              {Start: base + 65999, Length: 1},
			"around a pod's":      {Start: base, Length: 3 * 65536},
			"one id in common":    {Start: base + 65999, Length: 70000},
			"an aligned 65536 of": {Start: base, Length: 65536},
		} {
			t.Run(name, func(t *testing.T) { n.wantConflict(t, ids, "pod", holder.ID) })
		}
		t.Run("what the kernel does not take", func(t *testing.T) {
			n.wantConflict(t, labnode.Extent{Start: 0xFFFF0000, Length: 65536}, "kernel", "cannot be mapped by the kernel")
			n.wantConflict(t, labnode.Extent{Start: 0xFFFFFFFF, Length: 1}, "kernel", "cannot be mapped by the kernel")
		})
		n.wantGranted(t, labnode.Extent{Start: base + 66000, Length: 1000})
	})
}

// TestStrictClaimsAreWholeRanges: kubelet's always are.
func TestStrictClaimsAreWholeRanges(t *testing.T) {
	t.Parallel()
	bothPolicies(t, labnode.DaemonOptions{}, func(t *testing.T, n claimNode) {
		start := slot(n.Kubelet(), 1).Start
		for name, ids := range map[string]labnode.Extent{
			"too short":   {Start: start, Length: 65535},
			"too long":    {Start: start, Length: 65537},
			"not aligned": {Start: start + 1, Length: 65536},
		} {
			_, err := n.TryRunPod(t, n.PodRequest(t, nodetest.MappingOf(ids)))
			t.Run(name, func(t *testing.T) { wantError(t, err, codes.InvalidArgument, extentText(ids), "multiple of 65536") })
		}
	})
}
