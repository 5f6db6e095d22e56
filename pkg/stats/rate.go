package stats

import (
	"sync"
	"time"
)

// The window over which a rate is taken. Asked again sooner than the shortest, there is an earlier
// reading to compare with; a reading that is older than the longest says nothing of now.
const (
	shortestWindow = time.Second
	longestWindow  = 5 * time.Minute
)

// sample is processor time at a moment.
type sample struct {
	at    time.Time
	usage uint64 // nanoseconds
}

// rates turns processor time into its rate, by comparing with earlier requests for the same
// object. It keeps two samples of each object that was asked for in the last few minutes. A
// client that asks every ten seconds, as kubelet does, gets the average of those; no background
// sampler has to run for it.
type rates struct {
	mu     sync.Mutex
	of     map[string]*history // by id, guarded by mu
	pruned time.Time           // guarded by mu
}

// history has the newest sample, and the one before it, which is at least shortestWindow older.
type history struct {
	last, before sample
}

func newRates() *rates { return &rates{of: map[string]*history{}} }

// observe adds a sample and returns the rate up to it in nanoseconds a second. An object that is
// new here is compared with born, when it had used nothing; the zero time says that nobody knows. There is
// no rate without a sample that is old enough to compare with, and young enough.
func (r *rates) observe(id string, now sample, born time.Time) (nanoCores uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pruneLocked(now.at)
	h, known := r.of[id]
	if !known {
		h = &history{last: sample{at: born}}
		r.of[id] = h
	}
	base := h.last
	if now.at.Sub(base.at) < shortestWindow {
		return rate(h.before, now)
	}
	h.before, h.last = h.last, now
	return rate(base, now)
}

// pruneLocked forgets what was not asked for in a while.
func (r *rates) pruneLocked(now time.Time) {
	if now.Sub(r.pruned) < longestWindow {
		return
	}
	r.pruned = now
	for id, h := range r.of {
		if now.Sub(h.last.at) > longestWindow {
			delete(r.of, id)
		}
	}
}

func rate(from, to sample) (uint64, bool) {
	window := to.at.Sub(from.at)
	if from.at.IsZero() || window < shortestWindow || window > longestWindow || to.usage < from.usage {
		return 0, false
	}
	return uint64(float64(to.usage-from.usage) / window.Seconds()), true
}
