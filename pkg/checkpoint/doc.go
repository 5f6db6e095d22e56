// Package checkpoint reads and writes what a container was at a moment: a directory in the layout
// that checkpointctl knows, the tar archive of such a directory, and the directory of a pod's
// checkpoint. It runs no CRIU, mounts nothing and makes no containers.
//
// Archives come from outside. They are unpacked below a directory of their own in which nothing is ever
// made but directories and regular files of known names, and no more than the limits allow.
package checkpoint
