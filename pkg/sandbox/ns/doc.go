// Package ns creates, pins, inspects and removes the namespaces of a pod: user, network, IPC and UTS.
//
// A namespace lives as long as something refers to it. Here that is a bind mount of
// /proc/<pid>/ns/<kind> onto a file, so a pod needs no process of its own (no pause container).
// The process behind <pid> exists for some milliseconds. It is a clone of the calling process
// that executes nothing but a few system calls (see child_linux.go) and is killed once the pins
// are there.
//
// Who owns what. The user namespace is created with the effective uid set to the first host id of
// the pod's range. So NS_GET_OWNER_UID names the pod, and what the kernel accounts to the creator
// of a user namespace (inotify instances and watches, pending signals, locked memory, message
// queues, nested namespaces) is accounted to that id, not to root and thereby to all pods
// together. The other namespaces are made by the same process after it entered the user
// namespace: they belong to it. A network namespace that does not could not have /sys mounted
// inside, and the pod's CAP_NET_ADMIN would mean nothing.
//
// Everything derives from two paths that the caller derives from the sandbox's id, so Remove
// needs no memory of Create and works after a crash at any point of it.
//
// Pins are mounted with the propagation of the mount they lie on. Containerd's shim and the OCI
// runtime open them by path in the host's mount namespace; where that mount is shared, an
// unmount here also reaches the copies that other mount namespaces received.
//
// The package decides nothing: which ids a pod gets, which namespaces it shares with the host and
// which sysctls a pod may ask for beyond "the kernel keeps it per namespace" is the caller's
// business. It knows no CRI, no containerd, no pool of ids, and it configures no network.
// Mount, PID, cgroup and time namespaces belong to containers; the OCI runtime makes them. A PID
// namespace that others are to join can be pinned like the rest (pid_linux.go).
package ns
