package network

import (
	"errors"
	"testing"
)

func FuzzBandwidth(f *testing.F) {
	for _, seed := range []string{"10M", "1k", "1P", "0", "-1M", "1e400", "1.5Gi", "", "M", "999", "1000000000000001", "\x00"} {
		f.Add(seed, "10M")
	}
	f.Fuzz(func(t *testing.T, ingress, egress string) {
		got, err := bandwidthOf(map[string]string{ingressAnnotation: ingress, egressAnnotation: egress})
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%q, %q: %v is not ErrInvalid", ingress, egress, err)
			}
			return
		}
		if got == nil || got.IngressRate < minBandwidth || got.IngressRate > maxBandwidth || got.EgressRate < minBandwidth || got.EgressRate > maxBandwidth {
			t.Errorf("%q, %q: limits %+v", ingress, egress, got)
		}
	})
}
