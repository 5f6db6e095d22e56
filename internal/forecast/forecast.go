// Package forecast predicts from a short history when a falling count will reach zero. It
// keeps the history in memory, bounded, and knows nothing of what is counted.
package forecast

import (
	"slices"
	"time"
)

// Sample is a count at a time.
type Sample struct {
	At    time.Time
	Count int
}

// minSamples is the least number of samples with which a trend is told.
const minSamples = 5

// Empty returns how long after the last sample the count reaches zero if it goes on as the
// samples, which are in the order of time, do; false when it does not fall. The slope is the
// median of those between all pairs (Theil and Sen), of all samples or of their later half, whichever falls less:
// a single step at any time, such as the pods of a node that boots or an operator's reservation, is no
// trend, where least squares would extrapolate it for as long as the history lasts.
func Empty(samples []Sample) (time.Duration, bool) {
	if len(samples) == 0 {
		return 0, false
	}
	last := samples[len(samples)-1]
	if last.Count <= 0 {
		return 0, true
	}
	if len(samples) < minSamples {
		return 0, false
	}
	slope := max(medianSlope(samples), medianSlope(samples[len(samples)/2:]))
	if slope >= 0 {
		return 0, false
	}
	seconds := float64(last.Count) / -slope
	if seconds > farthest.Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// farthest keeps the result within a Duration, which ends at 292 years.
const farthest = 24 * 365 * time.Hour

// medianSlope returns counts per second. Pairs of one moment have none.
func medianSlope(samples []Sample) float64 {
	slopes := make([]float64, 0, len(samples)*(len(samples)-1)/2)
	for i, a := range samples {
		for _, b := range samples[i+1:] {
			if span := b.At.Sub(a.At).Seconds(); span > 0 {
				slopes = append(slopes, float64(b.Count-a.Count)/span)
			}
		}
	}
	if len(slopes) == 0 {
		return 0
	}
	slices.Sort(slopes)
	middle := len(slopes) / 2
	if len(slopes)%2 == 1 {
		return slopes[middle]
	}
	return (slopes[middle-1] + slopes[middle]) / 2
}
