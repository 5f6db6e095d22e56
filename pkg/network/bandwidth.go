package network

import (
	"fmt"
	"math"

	gocni "github.com/containerd/go-cni"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The annotations that limit a pod's bandwidth, in bits per second.
const (
	ingressAnnotation = "kubernetes.io/ingress-bandwidth"
	egressAnnotation  = "kubernetes.io/egress-bandwidth"
)

// Kubernetes takes no less than a kilobit and no more than a petabit per second.
const (
	minBandwidth = 1e3
	maxBandwidth = 1e15
)

// bandwidthOf returns the limits that a pod's annotations ask for, or nil. Bursts are not limited:
// Kubernetes has no way to ask.
func bandwidthOf(annotations map[string]string) (*gocni.BandWidth, error) {
	ingress, err := rateOf(annotations, ingressAnnotation)
	if err != nil {
		return nil, err
	}
	egress, err := rateOf(annotations, egressAnnotation)
	if err != nil {
		return nil, err
	}
	if ingress == 0 && egress == 0 {
		return nil, nil
	}
	limits := &gocni.BandWidth{IngressRate: ingress, EgressRate: egress}
	const unlimited = math.MaxUint32 // the most that the bandwidth plugin takes
	if ingress > 0 {
		limits.IngressBurst = unlimited
	}
	if egress > 0 {
		limits.EgressBurst = unlimited
	}
	return limits, nil
}

// rateOf returns the rate that an annotation gives, 0 when it is not there.
func rateOf(annotations map[string]string, name string) (uint64, error) {
	value, ok := annotations[name]
	if !ok {
		return 0, nil
	}
	quantity, err := resource.ParseQuantity(value)
	if err != nil {
		return 0, fmt.Errorf("%w: annotation %s=%q: %w", ErrInvalid, name, value, err)
	}
	rate := quantity.Value()
	if rate < minBandwidth || rate > maxBandwidth {
		return 0, fmt.Errorf("%w: annotation %s=%q is not between 1k and 1P", ErrInvalid, name, value)
	}
	return uint64(rate), nil
}
