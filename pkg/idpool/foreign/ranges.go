package foreign

import (
	"slices"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// idRanges are those of one owner, each once.
type idRanges []idpool.Range

// add takes what is a range of ids, and leaves out what is none.
func (rs *idRanges) add(start, length int64) {
	if start < 0 || length <= 0 || start+length > 1<<32 || length > 1<<32-1 {
		return
	}
	r := idpool.Range{Start: uint32(start), Length: uint32(length)}
	if !slices.Contains(*rs, r) {
		*rs = append(*rs, r)
	}
}
