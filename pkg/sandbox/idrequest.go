package sandbox

import (
	"errors"
	"fmt"
	"path"
	"slices"
)

// The annotations by which a pod asks for ids; kubelet hands a pod's annotations on.
const (
	AnnotationIDs         = "userns-shim.io/ids"
	AnnotationReservation = "userns-shim.io/reservation"
)

// What keeps a pod from the ids that its annotations ask for.
var (
	// ErrIDRequest means that the annotations make no sense, whatever the node allows.
	ErrIDRequest = errors.New("invalid annotation")
	// ErrIDsNotAllowed means that the runtime handler does not let its pods ask for this.
	ErrIDsNotAllowed = errors.New("not allowed by the runtime handler")
	// ErrReservation means that the pod cannot join the named reservation as it is.
	ErrReservation = errors.New("reservation cannot be joined")
)

// IDRequest is what a pod's annotations ask of the pool. The zero value asks for nothing, and at most one
// field is set. It wins over a mapping that the client sends too: kubelet cannot know of it, and sends one for every pod.
type IDRequest struct {
	// Count is a number of host ids in a row, a multiple of idpool.Unit.
	Count uint32 `json:"count,omitempty"`
	// Reservation names the reservation whose range the pod shares with all others that name it.
	Reservation string `json:"reservation,omitempty"`
}

// IDLimits are what the pods of a runtime handler may ask for. The zero value allows nothing.
type IDLimits struct {
	// MaxCount is the greatest IDRequest.Count.
	MaxCount uint32
	// Reservations are patterns of path.Match for IDRequest.Reservation.
	Reservations []string
}

// checkIDRequest refuses annotations that the handler does not allow, or that mean nothing since the pod has the
// host's ids.
func (m *Manager) checkIDRequest(spec Spec) error {
	ask := spec.IDs
	if ask == (IDRequest{}) {
		return nil
	}
	policy, err := m.handlerPolicy(spec)
	if err != nil {
		return err
	}
	handler := m.handlerName(spec)
	limits := m.opts.IDs[handler]
	if ask.Count > limits.MaxCount {
		return fmt.Errorf("annotation %s asks for %d ids, maxIDsPerPod of runtime handler %q is %d: %w",
			AnnotationIDs, ask.Count, handler, limits.MaxCount, ErrIDsNotAllowed)
	}
	if ask.Reservation != "" && !limits.lets(ask.Reservation) {
		return fmt.Errorf("annotation %s names %q, which reservations of runtime handler %q does not: %w",
			AnnotationReservation, ask.Reservation, handler, ErrIDsNotAllowed)
	}
	if wants, err := wantsUserNamespace(spec, policy); err != nil || wants {
		return err
	}
	return fmt.Errorf("%w %s or %s: the pod uses the host's user namespace", ErrIDRequest, AnnotationIDs, AnnotationReservation)
}

// lets says whether a pod may join the reservation. The configuration has held the patterns to be good ones.
func (l IDLimits) lets(reservation string) bool {
	return slices.ContainsFunc(l.Reservations, func(pattern string) bool {
		match, err := path.Match(pattern, reservation)
		return err == nil && match
	})
}
