package mounts

import (
	"path/filepath"
	"strings"
)

// place is a directory and the mount that holds it.
type place struct {
	path  string
	mount uint64 // the kernel's id of the mount
}

// layer is a directory as it is reached through a clone.
type layer struct {
	root place  // directory to clone
	rel  string // the layer below root, "." for root itself
}

// layout says which directories have to be cloned to reach every layer: one for all layers
// in the same mount, their common ancestor. anchors are directories that other snapshots of the
// same snapshotter lie beside, the upper directory: with them the ancestor is the snapshotter's own directory
// even for an image of one layer, and so the same for every image. A clone holds one
// mount without those below it, thus layers that are mounts of their own get clones of their own.
//
// The ancestor is taken by name. It lies in the same mount, because leaving a mount upwards takes its
// mountpoint, which both names have in common; a symbolic link in the middle of a name can break
// that, which shows as an error when the layer is opened below the clone.
func layout(lower, anchors []place) []layer {
	roots := make(map[uint64]string)
	for _, p := range append(append([]place(nil), lower...), anchors...) {
		if root, ok := roots[p.mount]; ok {
			roots[p.mount] = ancestor(root, p.path)
		} else {
			roots[p.mount] = p.path
		}
	}
	layers := make([]layer, len(lower))
	for i, p := range lower {
		root := roots[p.mount]
		layers[i] = layer{root: place{path: root, mount: p.mount}, rel: below(root, p.path)}
	}
	return layers
}

// ancestor returns the deepest directory that holds both clean absolute paths, or is one of them.
func ancestor(a, b string) string {
	for a != "/" && a != b && !strings.HasPrefix(b, a+"/") {
		a = filepath.Dir(a)
	}
	return a
}

// below returns path relative to root, which is one of its ancestors or itself.
func below(root, path string) string {
	rel := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
	if rel == "" {
		return "."
	}
	return rel
}
