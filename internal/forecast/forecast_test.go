package forecast

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var epoch = time.Unix(1_700_000_000, 0)

// hour is a series of two samples a minute.
func hour(count func(minute float64) int) []Sample {
	samples := make([]Sample, 0, 120)
	for i := range 120 {
		samples = append(samples, Sample{At: epoch.Add(time.Duration(i) * 30 * time.Second), Count: count(float64(i) / 2)})
	}
	return samples
}

func TestEmpty(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2))
	for name, test := range map[string]struct {
		samples []Sample
		want    time.Duration // less than 0: no prediction
		within  time.Duration
	}{
		"nothing known": {nil, -1, 0},
		"too few":       {hour(func(m float64) int { return 100 - int(2*m) })[:4], -1, 0},
		"constant":      {hour(func(float64) int { return 7 }), -1, 0},
		"rising":        {hour(func(m float64) int { return int(m) + 1 }), -1, 0},
		"empty":         {hour(func(float64) int { return 0 }), 0, 0},
		// 512 ranges, two less each minute: after 59.5 minutes 393 are left.
		"steady":             {hour(func(m float64) int { return 512 - int(2*m) }), 196*time.Minute + 30*time.Second, time.Minute},
		"one in ten minutes": {hour(func(m float64) int { return 30 - int(m/10) }), 250 * time.Minute, time.Hour},
		"noisy": {
			hour(func(m float64) int { return 512 - int(2*m) + noise.IntN(21) - 10 }),
			196 * time.Minute, 15 * time.Minute,
		},
		"a boot and then quiet": {hour(func(m float64) int { return 512 - int(min(m, 10)*11) }), -1, 0},
		"an early step":         {hour(func(m float64) int { return 512 - 300*int(min(m/20, 1)) }), -1, 0},
		"a step in the middle":  {hour(func(m float64) int { return 512 - 300*int(m/30) }), -1, 0},
		"a late step":           {hour(func(m float64) int { return 512 - 300*int(m/40) }), -1, 0},
		"jobs that come and go": {hour(func(m float64) int { return 500 - int(50*math.Abs(math.Sin(m/3))) }), -1, 0},
		"one moment":            {[]Sample{{epoch, 9}, {epoch, 8}, {epoch, 7}, {epoch, 6}, {epoch, 5}}, -1, 0},
		"in 10,000 years":       {hour(func(m float64) int { return 1<<40 - int(m*2) }), -1, 0},
	} {
		got, falls := Empty(test.samples)
		switch {
		case falls != (test.want >= 0):
			t.Errorf("%s: falls is %t (%s)", name, falls, got)
		case falls && (got-test.want).Abs() > test.within:
			t.Errorf("%s: empty in %s, want %s", name, got, test.want)
		}
	}
}

func TestTrackerPredictsFromAWindow(t *testing.T) {
	tr := NewTracker(time.Hour)
	at := func(i int) time.Time { return epoch.Add(time.Duration(i) * tr.Interval()) }
	for i := range 10 { // 4.5 minutes
		tr.Observe("pool", Sample{at(i), 1000 - i})
	}
	if in := tr.EmptyIn("pool", at(9)); in != nil {
		t.Errorf("after a few samples empty in %s", *in)
	}
	for i := 10; i < 1000; i++ {
		tr.Observe("pool", Sample{at(i), 1001 - i})
		tr.Observe("kubelet", Sample{at(i), 5})
	}
	if in := tr.EmptyIn("pool", at(1000)); in == nil || (*in-30*time.Second).Abs() > time.Second {
		t.Errorf("empty in %v, want 30s", in)
	}
	if in := tr.EmptyIn("pool", at(2000)); in == nil || *in != 0 {
		t.Errorf("past its time empty in %v, want 0", in)
	}
	if in := tr.EmptyIn("kubelet", at(1000)); in != nil {
		t.Errorf("what does not fall is empty in %s", *in)
	}
	if n := len(tr.series["pool"]); n > perWindow+1 {
		t.Errorf("%d samples are kept, want %d at most", n, perWindow+1)
	}
	for i := 1000; i < 1120; i++ { // pods ended, all is well again
		tr.Observe("pool", Sample{at(i), 500})
	}
	if in := tr.EmptyIn("pool", at(1120)); in != nil {
		t.Errorf("after it recovered empty in %s", *in)
	}
	tr.Observe("full", Sample{epoch, 0})
	if in := tr.EmptyIn("full", epoch); in == nil || *in != 0 {
		t.Errorf("a count of 0 is empty in %v", in)
	}
}

// TestTrackerTellsNothingOfFarTimes: one range less in an hour of a pool of thousands.
func TestTrackerTellsNothingOfFarTimes(t *testing.T) {
	tr := NewTracker(time.Hour)
	for i := range 121 {
		tr.Observe("pool", Sample{epoch.Add(time.Duration(i) * tr.Interval()), 2000 - i/20})
	}
	if in := tr.EmptyIn("pool", epoch); in != nil {
		t.Errorf("empty in %s", *in)
	}
}

func TestTrackerForgetsWhatIsOlderThanItsWindow(t *testing.T) {
	tr := NewTracker(time.Minute)
	for i := range 50 {
		tr.Observe("pool", Sample{epoch.Add(time.Duration(i) * time.Second), 100 - i})
	}
	later := epoch.Add(time.Hour)
	tr.Observe("pool", Sample{later, 20})
	if in := tr.EmptyIn("pool", later); in != nil || len(tr.series["pool"]) != 1 {
		t.Errorf("empty in %v, with %d samples", in, len(tr.series["pool"]))
	}
}
