// Package state is the daemon's durable state: one bbolt file, in which typed
// buckets of several owners commit in one transaction.
//
// What an owner holds in memory is a cache of its bucket. Tx.OnRollback and
// Tx.OnCommit keep the two together: the hooks of a transaction run before the
// next one may write.
//
// A file that is damaged is refused, never repaired and never replaced by an
// empty one. Open reads the whole of it with pread first, because bbolt maps the
// file, and a bad page number in a mapped file is a signal that ends the daemon
// rather than an error. Every value carries a checksum beside.
//
// The package knows nothing of pods, ranges or containers; owners define their
// records. It keeps no history, takes no backups and does no caching.
package state
