// Package reconcile finds ranges of host ids that leaked: the id pool's ledger, the records of sandboxes and what
// the node really has (pins, processes, containerd's containers and layers) are held against each other, at the start of the daemon
// and now and then. What it finds it names, counts and repairs.
//
// A pod that is being made or taken away is no leak. The range and the record of a sandbox commit together, so these two are
// compared where no transaction is open. On the node, everything of a sandbox or container comes after its
// record and goes before it, and ids are never used again: what was there before and is there after a moment in which
// there was no record is a leak.
//
// It never ends a process, and never takes from a pod that has a record. It makes no record of a sandbox: package
// rebuild does that, when there is no database.
package reconcile
