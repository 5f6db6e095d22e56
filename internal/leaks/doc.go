// Package leaks finds what pods leave behind on a node: mounts, pinned namespaces, cgroups, processes,
// containerd's records and snapshots, namespaces and detached mounts that daemons hold open, CNI addresses, interfaces, packet filter rules, FIFOs, id ranges.
//
// A Scope says where one node's things are. Take an inventory before a test, and Scope.Check afterwards names
// what has come since and has not gone. The package only looks: it removes nothing and kills nothing, and it
// does not see what lies outside its scope.
package leaks
