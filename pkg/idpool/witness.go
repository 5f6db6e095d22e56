package idpool

import (
	"strings"
	"time"
)

// Trace is a set of reasons for which a released range is not given to another
// pod yet.
type Trace uint8

const (
	// TraceNamespace: a process is in a user namespace that maps the range.
	TraceNamespace Trace = 1 << iota
	// TraceCredentials: a process has a uid or gid in the range.
	TraceCredentials
	// TraceLayers: a writable layer of a container of the pod still exists.
	TraceLayers
	// TraceUnknown: nobody has looked since the range was released.
	TraceUnknown
)

// String lists the reasons, comma-separated; "none" when there is none.
func (t Trace) String() string {
	if t == 0 {
		return "none"
	}
	names := []string{}
	for i, name := range []string{"namespace", "credentials", "layers", "unknown"} {
		if t&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Witness says what on the node still uses a range that no sandbox holds.
type Witness interface {
	// Traces returns what is left of r, which was released at the given time.
	// It is called from several goroutines, with a transaction open and the
	// pool locked. So it answers at once, from a look at the node taken before,
	// returns TraceUnknown when that look is older than released, and never
	// calls the pool. A foreign copy of a namespace's pin is no trace.
	Traces(r Range, released time.Time) Trace
}
