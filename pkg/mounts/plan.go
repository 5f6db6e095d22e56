package mounts

import (
	"fmt"
	"path/filepath"
	"strings"
)

// kind is what a snapshotter's mount is.
type kind int

const (
	kindOverlay    kind = iota + 1
	kindBind            // one directory of a mounted filesystem
	kindFilesystem      // a filesystem of its own, usually on a block device
)

// plan is a snapshotter's mounts, understood. Making one does no I/O.
type plan struct {
	kind      kind
	fsType    string
	source    string
	recursive bool     // rbind
	lower     []string // topmost first
	upper     string   // empty for a read-only view
	work      string
	flags     flags
	params    []param // the filesystem's own options, in order
	readonly  bool    // by the request: the mount only, not the filesystem
}

// param is one option that the filesystem itself understands. A flag has no value.
type param struct {
	key, value string
	flag       bool
}

// newPlan understands the mounts that a snapshotter returned. A form that cannot be made is
// an error that wraps ErrUnsupportedMount.
func newPlan(mounts []Mount, readonly bool) (plan, error) {
	if len(mounts) != 1 {
		return plan{}, fmt.Errorf("%d mounts where one is expected: %w", len(mounts), ErrUnsupportedMount)
	}
	m := mounts[0]
	if err := supported(m); err != nil {
		return plan{}, err
	}
	p := plan{fsType: m.Type, source: m.Source, readonly: readonly}
	for _, option := range m.Options {
		if err := p.add(option); err != nil {
			return plan{}, fmt.Errorf("option %q of %s: %w", option, m.Type, err)
		}
	}
	return p, p.finish()
}

// supported refuses mounts that somebody else would have to prepare.
func supported(m Mount) error {
	switch {
	case m.Target != "":
		return fmt.Errorf("mount on the sub-directory %q: %w", m.Target, ErrUnsupportedMount)
	case strings.Contains(m.Type, "/"), strings.Contains(m.Source, "{{"):
		return fmt.Errorf("templated mount of type %q, source %q: %w", m.Type, m.Source, ErrUnsupportedMount)
	case strings.HasPrefix(m.Type, "fuse"):
		return fmt.Errorf("filesystem %q needs a helper program: %w", m.Type, ErrUnsupportedMount)
	}
	return nil
}

// finish decides on the kind and checks that what it needs is there.
func (p *plan) finish() error {
	switch {
	case p.kind == kindBind || p.fsType == "bind":
		p.kind = kindBind
		if !filepath.IsAbs(p.source) {
			return fmt.Errorf("bind of %q: %w: not an absolute path", p.source, ErrUnsupportedMount)
		}
		return nil
	case p.fsType == "overlay":
		p.kind = kindOverlay
		return p.checkLayers()
	case p.fsType == "":
		return fmt.Errorf("mount without a type: %w", ErrUnsupportedMount)
	}
	p.kind = kindFilesystem
	return nil
}

func (p *plan) checkLayers() error {
	if len(p.lower) == 0 {
		return fmt.Errorf("overlay without lowerdir: %w", ErrUnsupportedMount)
	}
	if (p.upper == "") != (p.work == "") {
		return fmt.Errorf("overlay needs both upperdir and workdir or none: %w", ErrUnsupportedMount)
	}
	for _, dir := range append([]string{p.upper, p.work}, p.lower...) {
		if dir != "" && !filepath.IsAbs(dir) {
			return fmt.Errorf("overlay directory %q is not an absolute path: %w", dir, ErrUnsupportedMount)
		}
	}
	return nil
}
