package forecast

import (
	"sync"
	"time"
)

const (
	// perWindow is the number of samples that a window holds.
	perWindow = 120
	// leastShare is the part of a window that has to have been seen before anything is predicted.
	leastShare = 12
	// reach is how many windows ahead a prediction is worth telling: what a history of one hour says of
	// the day after tomorrow is noise.
	reach = 48
)

// Tracker keeps the history of several counts, and predicts each. Its methods may be called
// concurrently.
type Tracker struct {
	window time.Duration

	mu     sync.Mutex
	series map[string][]Sample
	empty  map[string]time.Time // when a count reaches zero; missing for those that do not
}

// NewTracker returns one that looks back for window.
func NewTracker(window time.Duration) *Tracker {
	return &Tracker{window: window, series: map[string][]Sample{}, empty: map[string]time.Time{}}
}

// Interval is the pause between samples.
func (t *Tracker) Interval() time.Duration { return max(t.window/perWindow, time.Millisecond) }

// Observe adds a sample to the history of a count. Samples that are older than the window are forgotten, and so
// are the oldest of more than fit into one.
func (t *Tracker) Observe(name string, s Sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.series[name]
	for len(kept) > 0 && (s.At.Sub(kept[0].At) > t.window || len(kept) > perWindow) {
		kept = kept[1:]
	}
	kept = append(kept, s)
	t.series[name] = kept
	delete(t.empty, name)
	if s.Count > 0 && s.At.Sub(kept[0].At) < t.window/leastShare {
		return
	}
	if in, falls := Empty(kept); falls && in <= reach*t.window {
		t.empty[name] = s.At.Add(in)
	}
}

// EmptyIn returns how long after now the count reaches zero, nil when nothing says that it does.
func (t *Tracker) EmptyIn(name string, now time.Time) *time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, falls := t.empty[name]
	if !falls {
		return nil
	}
	in := max(at.Sub(now), 0)
	return &in
}
