package stats

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// fakeLayers is a snapshotter; its answers grow by one byte each.
type fakeLayers struct {
	takes   time.Duration
	only    string // the layer that takes so long; all when empty
	fails   atomic.Bool
	reads   atomic.Uint64
	now     atomic.Int64
	most    atomic.Int64
	already time.Duration // how old the answers are
}

func (f *fakeLayers) ReadLayer(ctx context.Context, _, key string) (Layer, error) {
	f.most.Store(max(f.most.Load(), f.now.Add(1)))
	defer f.now.Add(-1)
	n := f.reads.Add(1)
	takes := f.takes
	if f.only != "" && f.only != key {
		takes = 0
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return Layer{}, ctx.Err()
	}
	if f.fails.Load() {
		return Layer{}, errors.New("no such snapshot: " + key)
	}
	return Layer{Mountpoint: "/snapshots", Bytes: n, At: time.Now().Add(-f.already)}, nil
}

// inTime runs a test in a bubble where time passes only when everybody waits.
func inTime(t *testing.T, f *fakeLayers, test func(t *testing.T, l *layers)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLayers(f, clock.RealClock{}, klog.Background())
		defer l.close()
		test(t, l)
	})
}

// bytes is -1 where nothing is known.
func bytesOf(t *testing.T, l *layers, key string) int {
	t.Helper()
	layer := l.get(t.Context(), []layerKey{{"overlayfs", key}})[0]
	if layer == nil {
		return -1
	}
	return int(layer.Bytes)
}

func wantBytes(t *testing.T, l *layers, want int) {
	t.Helper()
	if got := bytesOf(t, l, "a"); got != want {
		t.Errorf("after %v: layer has %d bytes, want %d", time.Since(bubble), got, want)
	}
}

// bubble is when time begins in a bubble.
var bubble = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestLayerIsReadOnceInItsAge(t *testing.T) {
	inTime(t, &fakeLayers{takes: time.Millisecond}, func(t *testing.T, l *layers) {
		wantBytes(t, l, 1)
		time.Sleep(layerAge / 2)
		wantBytes(t, l, 1)
		time.Sleep(layerAge)
		wantBytes(t, l, 1) // what is known, while it is read again
		synctest.Wait()
		time.Sleep(time.Second)
		wantBytes(t, l, 2)
	})
}

func TestLayerAgeCountsFromTheReadersOwn(t *testing.T) {
	inTime(t, &fakeLayers{already: layerAge - time.Second}, func(t *testing.T, l *layers) {
		wantBytes(t, l, 1)
		time.Sleep(time.Second)
		wantBytes(t, l, 1)
		synctest.Wait()
		wantBytes(t, l, 2)
	})
}

func TestSlowLayerDoesNotHoldARequest(t *testing.T) {
	inTime(t, &fakeLayers{takes: 5 * time.Second}, func(t *testing.T, l *layers) {
		start := time.Now()
		wantBytes(t, l, -1)
		if took := time.Since(start); took > layerPatience {
			t.Errorf("the request took %v", took)
		}
		time.Sleep(6 * time.Second)
		start = time.Now()
		wantBytes(t, l, 1)
		time.Sleep(2 * layerAge)
		wantBytes(t, l, 1)
		if took := time.Since(start) - 2*layerAge; took > 0 {
			t.Errorf("requests for what is known took %v", took)
		}
		time.Sleep(layerShare * 5 * time.Second)
		wantBytes(t, l, 1)
		time.Sleep(6 * time.Second)
		wantBytes(t, l, 2)
	})
}

func TestSlowLayerDoesNotHoldOthers(t *testing.T) {
	inTime(t, &fakeLayers{takes: time.Hour, only: "a"}, func(t *testing.T, l *layers) {
		wantBytes(t, l, -1)
		if got := bytesOf(t, l, "b"); got != 2 {
			t.Errorf("beside a slow layer another has %d bytes, want 2", got)
		}
	})
}

func TestLayersAreReadFewAtATime(t *testing.T) {
	f := &fakeLayers{takes: time.Millisecond}
	inTime(t, f, func(t *testing.T, l *layers) {
		var keys []layerKey
		for i := range 50 {
			keys = append(keys, layerKey{"overlayfs", fmt.Sprint(i)})
		}
		for i, layer := range l.get(t.Context(), keys) {
			if layer == nil {
				t.Errorf("nothing is known of layer %d", i)
			}
		}
		if most := f.most.Load(); most != layerReaders {
			t.Errorf("%d layers were read at a time, want %d", most, layerReaders)
		}
	})
}

func TestFailureKeepsWhatWasKnown(t *testing.T) {
	f := &fakeLayers{}
	inTime(t, f, func(t *testing.T, l *layers) {
		wantBytes(t, l, 1)
		f.fails.Store(true)
		for range 3 {
			time.Sleep(2 * layerAge)
			wantBytes(t, l, 1)
			synctest.Wait()
		}
		start := time.Now()
		for range 3 {
			if got := bytesOf(t, l, "removed"); got != -1 {
				t.Errorf("a layer that cannot be read has %d bytes", got)
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("requests for a layer that cannot be read took %v", took)
		}
	})
}

func TestLayersForget(t *testing.T) {
	inTime(t, &fakeLayers{}, func(t *testing.T, l *layers) {
		for i := range 100 {
			bytesOf(t, l, fmt.Sprint(i))
		}
		time.Sleep(longestWindow + time.Second)
		bytesOf(t, l, "a")
		if len(l.of) != 1 {
			t.Errorf("%d layers are kept that nobody asked for", len(l.of)-1)
		}
	})
}

func TestCloseEndsReading(t *testing.T) {
	f := &fakeLayers{takes: time.Hour}
	inTime(t, f, func(t *testing.T, l *layers) {
		start := time.Now()
		bytesOf(t, l, "a")
		l.close()
		if took := time.Since(start); took > layerPatience {
			t.Errorf("close took %v", took)
		}
		bytesOf(t, l, "b")
		if reads := f.reads.Load(); reads != 1 {
			t.Errorf("%d layers were read, want none after the end", reads)
		}
	})
}
