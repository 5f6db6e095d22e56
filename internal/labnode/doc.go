// Package labnode runs a node for tests and for the demo: a private containerd, userns-shim itself and a
// loopback registry, inside a mount and a network namespace of their own.
//
// Everything that such a node makes outside the file system (bridges, iptables rules, namespace pins,
// rootfs mounts) lives in those two namespaces and ends with them; cgroups carry the node's name; files
// are below one directory. Close undoes all of it, and Sweep does so for a node whose owner was killed.
//
// The package starts programs and does not talk CRI. It has no knowledge of tests either: package testkit
// ties it to testing.TB. It is no process supervisor for production.
package labnode
