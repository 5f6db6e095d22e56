// Package stats reads what containers and pods use: processor, memory, disk and processes from
// their cgroups, the network from the pod's network namespace, the writable layer from the
// engine.
//
// Cgroups are read from their files at the path that the specification gave them. Asking each
// pod's shim instead, as containerd's CRI plugin does, would be a call to containerd and one to the shim for
// every container, which then read the same files.
//
// Nothing is collected that nobody asks for: there is no sampler that runs by itself. What a
// rate or the size of a layer needs from earlier requests is kept for some minutes after the
// last one, so that what is gone is forgotten without being told.
//
// The package neither knows CRI's messages nor changes a cgroup. Package cadvisor below it names
// the figures as metrics.
package stats
