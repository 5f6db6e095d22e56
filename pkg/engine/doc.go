// Package engine is userns-shim's client of containerd, and the only package that imports
// containerd's. It keeps images, snapshots, container records and tasks there, and implements the
// interfaces that pkg/container and pkg/image declare for them.
//
// containerd may be down when the daemon starts, and may go away at any time: the connection is made
// by the first call, and made again whenever it broke. Calls meanwhile fail with an error that wraps
// errdefs.ErrUnavailable and names the address. All errors are errdefs'.
//
// A pod's containers share one shim process, the group, which ends with the last of its tasks. Since
// no pause container keeps a group alive, the package sees to it that no task is created in a shim
// that is about to end (see taskGroups).
//
// The package knows nothing of CRI, user namespaces or mounts: it hands a snapshot's mounts out and
// takes a spec whose root is mounted already. It remembers nothing durably; containerd does.
package engine
