// Package kernel finds out what the running kernel can do for pods with user namespaces.
//
// A probe does the real thing on throwaway objects, because distributions backport features and security
// modules or configuration take them away: a version number proves nothing either way. Each probe runs
// once, its answer is kept, and it leaves nothing behind. A refusal is an error that names the feature
// and the version that brought it.
//
// The package decides nothing about pods, reads no configuration, and knows nothing of runc or
// containerd, whose features are asked elsewhere. It cannot make user namespaces: its user supplies one.
package kernel
