package subid

import (
	"fmt"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// Kubelet returns the extent that kubelet draws from, given all subordinate uids
// and gids of its user and its userNamespaces.idsPerPod. ErrNone, ErrSeveral,
// ErrDiffer and ErrUnfit name what keeps kubelet from using them.
func Kubelet(uids, gids []idpool.Range, idsPerPod uint32) (idpool.Range, error) {
	for _, side := range []struct {
		kind   string
		ranges []idpool.Range
	}{{"uids", uids}, {"gids", gids}} {
		switch len(side.ranges) {
		case 0:
			return idpool.Range{}, fmt.Errorf("subordinate %s of %s: %w", side.kind, User, ErrNone)
		case 1:
		default:
			return idpool.Range{}, fmt.Errorf("subordinate %s of %s, %v: %w", side.kind, User, side.ranges, ErrSeveral)
		}
	}
	if uids[0] != gids[0] {
		return idpool.Range{}, fmt.Errorf("uids %s and gids %s of %s: %w", uids[0], gids[0], User, ErrDiffer)
	}
	if err := fits(uids[0], idsPerPod); err != nil {
		return idpool.Range{}, err
	}
	return uids[0], nil
}

// fits applies the checks that kubelet makes when it starts.
func fits(r idpool.Range, idsPerPod uint32) error {
	switch {
	case idsPerPod == 0 || idsPerPod%idpool.Unit != 0:
		return fmt.Errorf("idsPerPod %d is no multiple of %d: %w", idsPerPod, idpool.Unit, ErrUnfit)
	case r.Start < idsPerPod:
		return fmt.Errorf("%s begins below %d: %w", r, idsPerPod, ErrUnfit)
	case r.Start%idsPerPod != 0 || r.Length%idsPerPod != 0:
		return fmt.Errorf("start or length of %s is no multiple of idsPerPod %d: %w", r, idsPerPod, ErrUnfit)
	}
	return nil
}

// Unconfigured returns what kubelet draws from on a node without a user kubelet:
// all of uid_t above its first idsPerPod ids. idsPerPod is not 0.
func Unconfigured(idsPerPod uint32) idpool.Range {
	return idpool.Range{Start: idsPerPod, Length: uint32(1<<32 - uint64(idsPerPod))}
}
