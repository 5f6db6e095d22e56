package hostids

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// Layers finds the writable layers of containers that a pod's ids own.
type Layers interface {
	// LayerRanges lists the ranges of the pods whose containers' writable layers exist.
	LayerRanges(ctx context.Context) ([]idpool.Range, error)
}

// WitnessOptions are what a Witness needs; both fields are required.
type WitnessOptions struct {
	Proc   string // a proc file system of the host's PID namespace
	Layers Layers
}

// Witness answers the pool from the last look at the node. Somebody has to call Look now and then; until the
// first one, and for what was released since the last one began, its answer is idpool.TraceUnknown.
type Witness struct {
	opts WitnessOptions

	looking sync.Mutex // held while a look is taken; before mu

	mu   sync.RWMutex
	seen *seen // nil before the first look; never changes once it is set
}

// seen is a look, by slots of idpool.Unit ids: of a range that is not aligned it says what holds of all slots
// that it touches.
type seen struct {
	look   *Look
	traces map[idpool.Trace]slotSet
}

// NewWitness returns a witness that has seen nothing yet.
func NewWitness(opts WitnessOptions) *Witness { return &Witness{opts: opts} }

// Look takes a look at the node, which the answers rest on from then on. An error leaves those of the last one.
// Callers who wait for each other share a look that began after they asked.
func (w *Witness) Look(ctx context.Context) error {
	asked := time.Now()
	w.looking.Lock()
	defer w.looking.Unlock()
	if last := w.Last(); last != nil && last.Began.After(asked) {
		return nil
	}
	return w.look(ctx)
}

func (w *Witness) look(ctx context.Context) error {
	// Layers first: one that is removed meanwhile had its processes' end before it.
	layers, err := w.opts.Layers.LayerRanges(ctx)
	if err != nil {
		return fmt.Errorf("look at writable layers: %w", err)
	}
	look, err := Take(ctx, w.opts.Proc)
	if err != nil {
		return err
	}
	var mapped, used []idpool.Range
	for _, n := range look.Namespaces {
		mapped = append(append(mapped, n.UIDs...), n.GIDs...)
	}
	for _, h := range look.Holders {
		used = append(used, idpool.Range{Start: h.ID, Length: 1})
	}
	s := &seen{look: look, traces: map[idpool.Trace]slotSet{
		idpool.TraceNamespace:   newSlotSet(mapped),
		idpool.TraceCredentials: newSlotSet(used),
		idpool.TraceLayers:      newSlotSet(layers),
	}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = s
	return nil
}

// Traces implements idpool.Witness.
func (w *Witness) Traces(r idpool.Range, released time.Time) idpool.Trace {
	s := w.last()
	if s == nil || !s.look.Began.After(released) {
		return idpool.TraceUnknown
	}
	var found idpool.Trace
	for trace, slots := range s.traces {
		if slots.touches(r) {
			found |= trace
		}
	}
	return found
}

// Last returns the last look, nil before the first one. It must not be changed.
func (w *Witness) Last() *Look {
	if s := w.last(); s != nil {
		return s.look
	}
	return nil
}

func (w *Witness) last() *seen {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.seen
}
