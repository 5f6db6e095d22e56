package ocispec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMergeResources(t *testing.T) {
	base := Resources{
		CPUShares: 100, MemoryLimit: 1 << 20, OOMScoreAdj: 5, Unified: map[string]string{"a": "1", "b": "1"},
		HugepageLimits: []HugepageLimit{{PageSize: "2MB", Limit: 1}},
	}
	update := Resources{CPUShares: 200, CPUQuota: 5, OOMScoreAdj: 9, Unified: map[string]string{"b": "2"}}
	want := Resources{
		CPUShares: 200, CPUQuota: 5, MemoryLimit: 1 << 20, OOMScoreAdj: 5, Unified: map[string]string{"a": "1", "b": "2"},
		HugepageLimits: []HugepageLimit{{PageSize: "2MB", Limit: 1}},
	}
	if diff := cmp.Diff(want, base.Merge(update)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if base.Unified["b"] != "1" {
		t.Error("the base was changed")
	}
}
