package engine

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// TestOCIVersion: a specification is never marked as newer than its runtime says it knows.
func TestOCIVersion(t *testing.T) {
	told := func(version string) RuntimeFeatures {
		return RuntimeFeatures{All: &features.Features{OCIVersionMax: version}}
	}
	for name, tc := range map[string]struct {
		features RuntimeFeatures
		want     string
	}{
		"runc 1.5":      {told("1.3.0"), "1.3.0"},
		"a newer one":   {told("1.4.0"), "1.3.0"},
		"crun 1.21":     {told("1.1.0+dev"), "1.1.0"},
		"a candidate":   {told("1.2.0-rc.1"), "1.2.0-rc.1"},
		"crun 1.8.1":    {RuntimeFeatures{}, "1.0.2"},
		"no version":    {told(""), "1.0.2"},
		"none that is":  {told("latest"), "1.0.2"},
		"ten after two": {told("1.10.0"), "1.3.0"},
	} {
		if got := ociVersion("1.3.0", tc.features); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}
