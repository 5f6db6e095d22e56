package cri

import (
	"fmt"
	"strconv"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// maxIDs is what one pod could have at most: all but the host's ids and those around uid -1.
const maxIDs = 1<<32 - 2*idpool.Unit

// idRequest reads the annotations by which a pod asks for ids. Whether it may is the sandbox manager's to say.
func idRequest(annotations map[string]string) (sandbox.IDRequest, error) {
	var ask sandbox.IDRequest
	text, counted := annotations[sandbox.AnnotationIDs]
	if counted {
		// ParseUint alone takes 065536 for a number, and means nothing else than the reader by it.
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil || n == 0 || n%idpool.Unit != 0 || n > maxIDs || strconv.FormatUint(n, 10) != text {
			return ask, fmt.Errorf("%w %s: %.40q is no multiple of %d up to %d", sandbox.ErrIDRequest, sandbox.AnnotationIDs, text, idpool.Unit, maxIDs)
		}
		ask.Count = uint32(n)
	}
	name, named := annotations[sandbox.AnnotationReservation]
	if !named {
		return ask, nil
	}
	if counted {
		return ask, fmt.Errorf("%w %s beside %s: a reservation has its own length", sandbox.ErrIDRequest, sandbox.AnnotationIDs, sandbox.AnnotationReservation)
	}
	if err := checkName("annotation "+sandbox.AnnotationReservation, name); err != nil {
		return ask, err
	}
	ask.Reservation = name
	return ask, nil
}
