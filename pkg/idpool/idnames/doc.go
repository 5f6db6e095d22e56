// Package idnames gives every host id of the pool a name, and finds the id of such a name, as systemd's User/Group
// Record Lookup API (io.systemd.UserDatabase) wants it.
//
//	userns-<pod>-<tag>-<id>          an id of a running pod: userns-web-7d4b9c6f5-7e11-1000
//	userns_quarantined-<tag>-<id>    of a range that rests after its pod
//	userns_reserved-<tag>-<id>       of a reservation
//	userns_free-<tag>-<id>           of an extent, free
//
// <id> is the id inside of the pod. <tag> is the upper half of the range's first host id in hexadecimal, which no
// other range has: names are unique whatever the pods are called, they do not change while a pod runs, and the id of a
// name is computed, not searched. So nothing is indexed, and nothing is enumerated: the pool can have 2^32 ids.
//
// Names are no longer than 31 characters, of letters, digits, underscores and dashes: systemd's strict rules, and what
// utmp holds. So <pod> is the beginning of the pod's name; the record's realName has all of it. Uids and gids have the
// same names, for a range has the same ids as both.
//
// Free ids have names too, because that is how systemd's own allocators (nspawn, nsresourced) learn that an id is
// taken. It names none of the host's ids (0-65535), none of systemd's foreign range, and not -1; it decides nothing
// about the pool and serves no socket.
package idnames
