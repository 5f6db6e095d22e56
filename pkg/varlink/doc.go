// Package varlink is a small server of the Varlink protocol on a unix socket that every user of the host may open:
// JSON messages, each ended by a zero byte, one reply for each call. What a client can take is bounded: the size of
// a message, the time to send and to read one, connections, and calls in a second.
//
// It is no client, streams no replies (a call with "more" gets its one reply), upgrades no connection and knows
// nothing of what the methods are about.
package varlink
