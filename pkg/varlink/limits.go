package varlink

import "time"

// Limits bound what clients can take. The zero value stands for DefaultLimits.
type Limits struct {
	// Message is the length of a call in bytes, with its final zero.
	Message int
	// Read is the time that a client may take to send a call, from the one before on.
	Read time.Duration
	// Write is the time that a client may take to read a reply.
	Write time.Duration
	// Connections and ConnectionsPerUser are open at once. The one that has been idle longest goes for a new one.
	Connections, ConnectionsPerUser int
	// AcceptsPerSecond bounds new connections of all users together.
	AcceptsPerSecond int
	// CallsPerSecond bounds the calls of all users but root, and CallsPerUser those of each of them. Calls
	// beyond it wait.
	CallsPerSecond, CallsPerUser int
}

// DefaultLimits are for lookups: calls of some hundred bytes, most of them on a connection of their own. A client
// that hangs on to its connections loses them to others, and all users together take a tenth of a processor at most.
func DefaultLimits() Limits {
	return Limits{
		Message:            16 << 10,
		Read:               10 * time.Second,
		Write:              2 * time.Second,
		Connections:        256,
		ConnectionsPerUser: 32,
		AcceptsPerSecond:   5000,
		CallsPerSecond:     2000,
		CallsPerUser:       500,
	}
}
