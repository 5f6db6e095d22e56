// Package idpool is the node's ledger of host id ranges: which pod owns which
// uids and gids, in multiples of 65,536.
//
// One ledger covers all of uid_t. It has two segments that do not overlap.
// Ranges are acquired from the pool's own extents; kubelet chooses inside its
// extents and its choice is claimed. A claim that lies in neither is kept as
// external. A range belongs to a pod UID and is counted by sandbox, because
// kubelet sends one mapping again for a pod's next sandbox while the previous
// one still exists. When the last sandbox of a pod is released the range waits
// in quarantine until a Witness finds no trace of it and a minimum age has
// passed.
//
// The truth is the Bucket that the caller hands in, a part of its own open
// transaction, so that a range and the record of the sandbox that uses it
// commit together. What the Pool holds in memory is a cache of that bucket and
// is taken back when the transaction fails.
//
// The package does no I/O of its own. It creates no namespaces, reads no
// configuration, looks at no process and knows nothing of a pod but its UID and
// the ids of its sandboxes. What to do about a conflict (remap or reject) is
// the caller's decision.
package idpool
