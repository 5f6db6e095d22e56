package selftest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
)

// idsPerPod is kubelet's default.
const idsPerPod = 65536

// DefaultIDs is what userns-shim's installer gives to kubelet: 1,534 ranges that no other allocator uses.
var DefaultIDs = Extent{Start: 2013265920, Length: 100532224}

// Extent is a run of host ids.
type Extent struct {
	Start  uint32
	Length uint64
}

func (e Extent) end() uint64 { return uint64(e.Start) + e.Length }

func (e Extent) overlaps(other Extent) bool {
	return uint64(e.Start) < other.end() && uint64(other.Start) < e.end()
}

func (e Extent) String() string { return fmt.Sprintf("%d-%d", e.Start, e.end()-1) }

// ParseExtent reads START:LENGTH.
func ParseExtent(text string) (Extent, error) {
	start, length, _ := strings.Cut(text, ":")
	s, err := strconv.ParseUint(start, 10, 32)
	if err != nil {
		return Extent{}, fmt.Errorf("%q is no START:LENGTH of ids: %w", text, err)
	}
	l, err := strconv.ParseUint(length, 10, 32)
	if err != nil || l == 0 {
		return Extent{}, errors.Join(fmt.Errorf("%q is no START:LENGTH of ids", text), err)
	}
	return Extent{Start: uint32(s), Length: l}, nil
}

// KubeletIDs reads the extent of the user kubelet from a subuid file, and returns DefaultIDs where
// the file or the line is missing.
func KubeletIDs(path string) (Extent, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return DefaultIDs, nil
	}
	if err != nil {
		return Extent{}, fmt.Errorf("read kubelet's ids: %w", err)
	}
	defer file.Close()
	ids, err := parseSubIDs(file)
	if err != nil {
		return Extent{}, fmt.Errorf("read kubelet's ids from %s: %w", path, err)
	}
	return ids, nil
}

func parseSubIDs(file io.Reader) (Extent, error) {
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if ids, ok := strings.CutPrefix(lines.Text(), "kubelet:"); ok {
			return ParseExtent(strings.TrimSpace(ids))
		}
	}
	return DefaultIDs, lines.Err()
}

// draw picks the range of a pod at random, as kubelet does, but none that overlaps ids in use.
func draw(from Extent, used []Extent) (Extent, error) {
	slots := int(from.Length / idsPerPod)
	for _, slot := range rand.Perm(slots) {
		pick := Extent{Start: from.Start + uint32(slot)*idsPerPod, Length: idsPerPod}
		free := true
		for _, e := range used {
			free = free && !e.overlaps(pick)
		}
		if free {
			return pick, nil
		}
	}
	return Extent{}, fmt.Errorf("none of the %d ranges in ids %s is free", slots, from)
}
