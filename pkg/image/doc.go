// Package image manages a node's container images: it normalises what a client calls an image,
// chooses the snapshotter of a runtime handler, and finds, lists, pulls and removes images in a Store.
//
// The package does no I/O of its own and remembers nothing: the Store, which pkg/engine implements over
// containerd, has the truth. It knows neither protobuf nor registries.
package image
