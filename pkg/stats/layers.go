package stats

import (
	"context"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Layer is what a container's writable layer holds.
type Layer struct {
	Mountpoint string // directory of the snapshotter that keeps it
	Bytes      uint64
	Inodes     uint64
	At         time.Time
}

// LayerReader sums up a writable layer, which walks all its files.
type LayerReader interface {
	ReadLayer(ctx context.Context, snapshotter, key string) (Layer, error)
}

// How layers are read. A layer that took long to sum up is asked for less often, so that at most
// about a tenth of one reader's time goes into each.
const (
	layerAge     = 10 * time.Second // containerd's CRI plugin has the same period
	layerShare   = 10
	layerReaders = 2
	layerTimeout = 2 * time.Minute
	// layerPatience is how long a request waits in all for layers of which nothing is known yet.
	layerPatience = 500 * time.Millisecond
)

type layerKey struct{ snapshotter, key string }

// layerState is what is known of one layer.
type layerState struct {
	layer *Layer    // nil until it was read once
	due   time.Time // from when on a request has it read again
	asked time.Time
	// first is closed once the first attempt to read it has ended.
	first   chan struct{}
	tried   bool
	pending bool // queued or being read
}

// layers answers with what it knows and has layers that were asked for read again in the
// background. Nobody waits for a layer of which something is known.
type layers struct {
	reader LayerReader
	clock  clock.PassiveClock

	// life is that of the goroutines that read; close ends it and waits for them.
	life    context.Context
	end     context.CancelFunc
	readers sync.WaitGroup

	mu      sync.Mutex
	of      map[layerKey]*layerState // guarded by mu
	queue   []layerKey               // guarded by mu
	running int                      // goroutines that read, guarded by mu
}

func newLayers(reader LayerReader, clk clock.PassiveClock, logger klog.Logger) *layers {
	l := &layers{reader: reader, clock: clk, of: map[layerKey]*layerState{}}
	l.life, l.end = context.WithCancel(klog.NewContext(context.Background(), logger))
	return l
}

func (l *layers) close() {
	l.mu.Lock()
	l.end() // under the lock, so that nothing starts after it
	l.mu.Unlock()
	l.readers.Wait()
}

// get returns a layer for each key, nil where nothing is known.
func (l *layers) get(ctx context.Context, keys []layerKey) []*Layer {
	patience := time.NewTimer(layerPatience)
	defer patience.Stop()
	for _, first := range l.ask(keys) {
		select {
		case <-first:
			continue
		case <-patience.C:
		case <-ctx.Done():
		case <-l.life.Done():
		}
		break
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*Layer, len(keys))
	for i, key := range keys {
		if state, ok := l.of[key]; ok {
			out[i] = state.layer
		}
	}
	return out
}

// ask queues what is due, and returns a channel for each layer that was never read.
func (l *layers) ask(keys []layerKey) []<-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	var unread []<-chan struct{}
	for _, key := range keys {
		state, ok := l.of[key]
		if !ok {
			state = &layerState{first: make(chan struct{})}
			l.of[key] = state
		}
		state.asked = now
		if !state.tried {
			unread = append(unread, state.first)
		}
		if !state.pending && !now.Before(state.due) {
			state.pending = true
			l.queue = append(l.queue, key)
		}
	}
	l.startLocked()
	l.forgetLocked(now)
	return unread
}

// startLocked has the queue worked on. One that finds it empty ends at once.
func (l *layers) startLocked() {
	for range min(len(l.queue), layerReaders-l.running) {
		if l.life.Err() != nil {
			return
		}
		l.running++
		l.readers.Go(l.work)
	}
}

// forgetLocked drops what was not asked for in a while.
func (l *layers) forgetLocked(now time.Time) {
	for key, state := range l.of {
		if !state.pending && now.Sub(state.asked) > longestWindow {
			delete(l.of, key)
		}
	}
}

// work reads until the queue is empty.
func (l *layers) work() {
	for {
		key, ok := l.next()
		if !ok {
			return
		}
		start := l.clock.Now()
		ctx, cancel := context.WithTimeout(l.life, layerTimeout)
		layer, err := l.reader.ReadLayer(ctx, key.snapshotter, key.key)
		cancel()
		if err != nil && l.life.Err() == nil {
			// Often its container was removed meanwhile.
			klog.FromContext(l.life).V(4).Info("Writable layer not read", "snapshotter", key.snapshotter, "key", key.key, "err", err)
		}
		l.put(key, layer, err, start)
	}
}

func (l *layers) next() (layerKey, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 || l.life.Err() != nil {
		l.running--
		return layerKey{}, false
	}
	key := l.queue[0]
	l.queue = l.queue[1:]
	return key, true
}

// put keeps an older result when the layer cannot be read now.
func (l *layers) put(key layerKey, layer Layer, err error, start time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	state := l.of[key]
	state.pending = false
	pause := max(layerAge, layerShare*now.Sub(start))
	if err != nil {
		state.due = now.Add(pause)
	} else {
		// The reader may have known it already: its age counts.
		state.layer, state.due = &layer, layer.At.Add(pause)
	}
	if !state.tried {
		state.tried = true
		close(state.first)
	}
}
