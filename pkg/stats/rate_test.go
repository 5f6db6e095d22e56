package stats

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// step is one request: so long after the start, with so much processor time used.
type step struct {
	after time.Duration
	usage time.Duration
	want  float64 // processors; negative for no rate
}

func TestRates(t *testing.T) {
	const none = -1
	for _, tc := range []struct {
		name  string
		born  time.Duration // negative: unknown
		steps []step
	}{
		{"an object whose beginning is known has a rate at once", 0, []step{{10 * time.Second, 5 * time.Second, 0.5}}},
		{"one that is not known has none", -1, []step{{10 * time.Second, 5 * time.Second, none}, {20 * time.Second, 25 * time.Second, 2}}},
		{"too young", 0, []step{{time.Second / 2, time.Second / 2, none}, {2 * time.Second, 2 * time.Second, 1}}},
		{"too old for its beginning to tell of now", 0, []step{
			{time.Hour, time.Minute, none},
			{time.Hour + 10*time.Second, time.Minute + time.Second, 0.1},
		}},
		{"asked again at once, the window still is a second", 0, []step{
			{10 * time.Second, 0, 0},
			{20 * time.Second, 10 * time.Second, 1},
			{20*time.Second + 1, 10 * time.Second, 1},
			{20*time.Second + 2, 10 * time.Second, 1},
			{22 * time.Second, 11 * time.Second, 0.5},
		}},
		{"nobody asked for long", 0, []step{
			{10 * time.Second, time.Second, 0.1},
			{time.Hour, time.Minute, none},
			{time.Hour + time.Second, time.Minute + time.Second, 1},
		}},
		{"a cgroup made anew counts from 0", 0, []step{
			{10 * time.Second, 10 * time.Second, 1},
			{20 * time.Second, time.Second, none},
			{30 * time.Second, 6 * time.Second, 0.5},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRates()
			var born time.Time
			if tc.born >= 0 {
				born = noon.Add(tc.born)
			}
			for i, s := range tc.steps {
				got, ok := r.observe("x", sample{at: noon.Add(s.after), usage: uint64(s.usage)}, born)
				if !ok && s.want >= 0 || ok && !near(float64(got)/1e9, s.want) {
					t.Errorf("step %d: rate %v, %v; want %v", i, float64(got)/1e9, ok, s.want)
				}
			}
		})
	}
}

func near(a, b float64) bool { return a-b < 0.001 && b-a < 0.001 }

func TestRatesForget(t *testing.T) {
	r := newRates()
	for i := range 1000 {
		r.observe(fmt.Sprint(i), sample{at: noon}, noon)
	}
	r.observe("kept", sample{at: noon.Add(2 * longestWindow)}, noon)
	if len(r.of) != 1 {
		t.Errorf("%d objects are kept after nobody asked for them for %v", len(r.of)-1, 2*longestWindow)
	}
}

func TestRatesSideBySide(t *testing.T) {
	r := newRates()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				r.observe(fmt.Sprint(j%3), sample{at: noon.Add(time.Duration(i*j) * time.Second), usage: uint64(j)}, noon)
			}
		})
	}
	all.Wait()
}
