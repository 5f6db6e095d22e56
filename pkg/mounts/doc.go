// Package mounts mounts a container's root filesystem so that a pod with a user namespace
// sees the image's files under its own ids, while the layers on disk stay as they were unpacked.
//
// A snapshotter describes a root filesystem as a list of [Mount]. What happens with it:
//
//   - An overlay. The directory that holds all its layers is cloned once per pod
//     (open_tree), the clone is idmapped with the pod's pinned user namespace (one
//     mount_setattr, whatever the number of layers and containers), and the overlay's lower layers
//     are opened relative to that clone. The upper and the work directory are not idmapped: a file
//     that user u of the container makes is owned by the range's first id + u on disk. So that the
//     root directory itself, which overlay takes from the upper one, looks as the image says, the
//     upper directory is given the owner of the topmost layer's root, shifted. Nothing else is
//     ever chowned or copied.
//   - A bind (an image without layers, a read-only view) or a single filesystem (native, btrfs,
//     zfs, devmapper). The whole mount is idmapped, and ids on disk stay unshifted: a file that
//     user u of the container makes is owned by u on disk. Snapshotters keep such directories
//     below one that only root may enter, which is what makes set-uid files there harmless.
//   - Without a user namespace: the same mounts, plain.
//
// Everything is built detached and becomes visible in one last step, move_mount, so an error on
// the way leaves nothing behind.
//
// Two ways lead to an overlay over idmapped layers, see [Way]: one for kernels that take detached
// mounts as layers (6.15), one that serves every kernel from 5.19, where overlay first took
// idmapped layers at all.
//
// The package knows nothing of CRI, containerd or the id pool. It makes no user namespaces, no
// directories and no volumes (an OCI runtime does those), removes no file, and keeps no record:
// after a restart of the program the mounts stay, and a pod's clone is made again when needed.
package mounts
