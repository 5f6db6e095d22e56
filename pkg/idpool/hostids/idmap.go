package hostids

import (
	"bytes"
	"fmt"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// wholeHost is the length from which on a mapping is taken for the host's own.
// The initial user namespace maps 4294967295 ids; service managers make
// namespaces that map just as much to the same ids. Their processes are as little
// the range's users as the host's are.
const wholeHost = 1 << 31

// parseIDMap reads a file of the form of /proc/<pid>/uid_map and returns the host
// ids that it maps, none for the host's own mapping. The kernel writes the outer
// ids as the reader sees them, so those of a nested namespace are host ids too.
func parseIDMap(text []byte) ([]idpool.Range, error) {
	var ranges []idpool.Range
	for line := range bytes.Lines(text) {
		var inner, outer, length uint32
		if _, err := fmt.Sscanf(string(line), "%d %d %d", &inner, &outer, &length); err != nil {
			return nil, fmt.Errorf("read id map %.60q: %w", line, err)
		}
		if length < wholeHost {
			ranges = append(ranges, idpool.Range{Start: outer, Length: length})
		}
	}
	return ranges, nil
}
