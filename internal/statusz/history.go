package statusz

import (
	"sync"
	"time"
	"unicode/utf8"
)

// What happens to ranges.
const (
	Allocated = "allocated"
	Released  = "released"
	Conflict  = "conflict"
	Failed    = "failed"
)

// Event is something that happened to a pod's range.
type Event struct {
	At             time.Time
	Kind           string // one of the above
	Namespace, Pod string
	Range          string // empty when there is none
	Detail         string
}

// maxDetail bounds what an event keeps of its detail, in bytes.
const maxDetail = 512

// History keeps the latest events. Its methods may be called concurrently.
type History struct {
	mu     sync.Mutex
	events []Event // a ring once it is full
	next   int     // where the next event goes in a full ring
}

// NewHistory returns one that keeps size events.
func NewHistory(size int) *History { return &History{events: make([]Event, 0, size)} }

// Add keeps the event, in the place of the oldest one when there are too many.
func (h *History) Add(e Event) {
	e.Detail = shorten(e.Detail)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.events) < cap(h.events) {
		h.events = append(h.events, e)
		return
	}
	h.events[h.next] = e
	h.next = (h.next + 1) % len(h.events)
}

// Latest returns the events, the latest first.
func (h *History) Latest() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Event, 0, len(h.events))
	for i := range h.events {
		at := (h.next - 1 - i + 2*len(h.events)) % len(h.events)
		out = append(out, h.events[at])
	}
	return out
}

// shorten cuts a text at maxDetail bytes, and not inside of a character.
func shorten(text string) string {
	if len(text) <= maxDetail {
		return text
	}
	at := maxDetail
	for at > 0 && !utf8.RuneStart(text[at]) {
		at--
	}
	return text[:at] + "…"
}
