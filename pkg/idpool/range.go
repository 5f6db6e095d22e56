package idpool

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// Unit is the number of ids in the smallest range, and what starts and
	// lengths are multiples of.
	Unit = 1 << 16

	// Invalid is the id (uid_t)-1, which the kernel keeps for "no change". A
	// map that reaches it is refused with EINVAL.
	Invalid = 1<<32 - 1

	// idSpace is the number of values of uid_t.
	idSpace = uint64(1) << 32
)

// Range is a run of consecutive host ids, the same for uids and gids.
type Range struct {
	Start  uint32 `json:"start"`
	Length uint32 `json:"length"`
}

// ForeignRange is the range in which systemd keeps the owners of foreign disk
// images (0x7FFE0000-0x7FFEFFFF). No pod is ever given it by acquisition.
func ForeignRange() Range { return Range{Start: 0x7FFE0000, Length: Unit} }

// HostRange holds the ids of the host's own users, which no pod is ever given.
func HostRange() Range { return Range{Start: 0, Length: Unit} }

// DefaultKubeletExtents returns the extents that an installer gives to kubelet
// where nothing else is configured: 1,534 ranges clear of every other allocator
// of a Linux host.
func DefaultKubeletExtents() []Range {
	return []Range{{Start: 2013265920, Length: 100532224}}
}

// DefaultExtents returns the pool's own extents where nothing else is
// configured: the 512 ranges above DefaultKubeletExtents.
func DefaultExtents() []Range {
	return []Range{{Start: 2113798144, Length: 33554432}}
}

// End returns the first id after the range. It is 64 bits wide because a range
// may end at 1<<32.
func (r Range) End() uint64 { return uint64(r.Start) + uint64(r.Length) }

// Contains says whether id lies in the range.
func (r Range) Contains(id uint32) bool {
	return id >= r.Start && uint64(id) < r.End()
}

// ContainsRange says whether all of o lies in the range. An empty o does not.
func (r Range) ContainsRange(o Range) bool {
	return o.Length > 0 && o.Start >= r.Start && o.End() <= r.End()
}

// Overlaps says whether the ranges have an id in common.
func (r Range) Overlaps(o Range) bool {
	return r.Length > 0 && o.Length > 0 &&
		uint64(r.Start) < o.End() && uint64(o.Start) < r.End()
}

// without returns what of the range lies before o, and what behind it.
func (r Range) without(o Range) []Range {
	var parts []Range
	if r.Start < o.Start {
		parts = append(parts, Range{Start: r.Start, Length: uint32(min(uint64(o.Start), r.End()) - uint64(r.Start))})
	}
	if o.End() < r.End() {
		start := max(o.End(), uint64(r.Start))
		parts = append(parts, Range{Start: uint32(start), Length: uint32(r.End() - start)})
	}
	return parts
}

// Aligned says whether start and length are multiples of Unit and the range is
// not empty.
func (r Range) Aligned() bool {
	return r.Length > 0 && r.Start%Unit == 0 && r.Length%Unit == 0
}

// Mappable says whether the kernel accepts the range as one extent of a uid_map:
// it is not empty and does not reach Invalid.
func (r Range) Mappable() bool { return r.Length > 0 && r.End() <= Invalid }

// String returns the range as start:length, the notation of subuid(5).
func (r Range) String() string { return fmt.Sprintf("%d:%d", r.Start, r.Length) }

// ParseRange parses start:length in decimal. It returns ErrInvalid for anything
// else, for an empty range and for one that ends above 1<<32.
func ParseRange(s string) (Range, error) {
	first, count, ok := strings.Cut(s, ":")
	if !ok {
		return Range{}, fmt.Errorf("parse range %q: want start:length: %w", s, ErrInvalid)
	}
	start, err := parseID(first)
	if err != nil {
		return Range{}, fmt.Errorf("parse start of range %q: %w", s, err)
	}
	length, err := parseID(count)
	if err != nil {
		return Range{}, fmt.Errorf("parse length of range %q: %w", s, err)
	}
	r := Range{Start: start, Length: length}
	if err := r.check(); err != nil {
		return Range{}, fmt.Errorf("parse range %q: %w", s, err)
	}
	return r, nil
}

// check returns ErrInvalid for a range that is empty or leaves uid_t.
func (r Range) check() error {
	if r.Length == 0 {
		return fmt.Errorf("length is 0: %w", ErrInvalid)
	}
	if r.End() > idSpace {
		return fmt.Errorf("range %s ends above %d: %w", r, idSpace, ErrInvalid)
	}
	return nil
}

// parseID takes decimal digits only: strconv alone would let a sign through.
func parseID(s string) (uint32, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%q is not a decimal number: %w", s, ErrInvalid)
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q does not fit 32 bits: %w", s, ErrInvalid)
	}
	return uint32(n), nil
}
