package sandbox

import "time"

// EventKind is what happened to a sandbox or to a container in it.
type EventKind string

// The kinds, as CRI has them.
const (
	EventCreated EventKind = "created"
	EventStarted EventKind = "started"
	EventStopped EventKind = "stopped"
	EventDeleted EventKind = "deleted"
)

// Event tells of a change that is recorded already. ID is a container's, or the sandbox's own.
type Event struct {
	Kind      EventKind
	ID        string
	SandboxID string
	At        time.Time
	// Last is a deleted sandbox as it was, which nobody can look up any more.
	Last *Record
}

// notify tells of what happened to the sandbox itself.
func (m *Manager) notify(kind EventKind, rec Record) {
	if m.opts.Notify == nil {
		return
	}
	event := Event{Kind: kind, ID: rec.ID, SandboxID: rec.ID, At: m.opts.Clock.Now()}
	if kind == EventDeleted {
		event.Last = &rec
	}
	m.opts.Notify(event)
}
