// Package foreign looks for owners of host ids that the ledger of this node has too: processes and user
// namespaces that are not those of pods, users and groups, subordinate ids, and what systemd, containers-storage
// and Incus or LXD have given away.
//
// What it finds is advice. It is looked for beside the work of pods, within bounds of time and memory whatever a
// source does, and nothing waits for it: of the pool it asks single ids, and holds no lock. It changes nothing,
// asks no daemon but the name service, and decides nothing: a range with a foreign owner is given away all the
// same, until an operator reserves it.
package foreign
