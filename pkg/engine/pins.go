package engine

import (
	"regexp"
	"slices"
	"strings"

	"github.com/userns-shim/userns-shim/pkg/image"
)

// pins are the patterns of images that are pinned by configuration. They are held against the names that images
// have now: nothing is written to containerd, so an image that was pulled before is pinned too, and one whose
// pattern has gone is not pinned any more.
type pins []*regexp.Regexp

// newPins compiles patterns in which a * stands for any characters. A pattern without one is a reference as a
// client writes it, such as "busybox".
func newPins(patterns []string) pins {
	var out pins
	for _, pattern := range patterns {
		if !strings.Contains(pattern, "*") {
			if full, err := image.Normalize(pattern); err == nil {
				pattern = full
			}
		}
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		out = append(out, regexp.MustCompile("^"+strings.Join(parts, ".*")+"$"))
	}
	return out
}

// has says whether one of the names is pinned.
func (p pins) has(lists ...[]string) bool {
	return slices.ContainsFunc(slices.Concat(lists...), func(name string) bool {
		return slices.ContainsFunc(p, func(pin *regexp.Regexp) bool { return pin.MatchString(name) })
	})
}
