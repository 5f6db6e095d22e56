package nri

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/ttrpc"
)

// witness sees each request to a plugin and its answer. The library answers with what all plugins said
// together: who said it, and that a plugin did not answer, is to be learnt here only. It is the
// adaptation.Metrics of the library.
type witness struct {
	plugins atomic.Int64

	mu      sync.Mutex
	faults  []fault
	answers []answer
}

// fault is a request that a plugin did not answer well.
type fault struct {
	plugin, request string
	err             error
}

// answer is the adjustment that one plugin asks for.
type answer struct {
	plugin string
	adjust *api.ContainerAdjustment
}

// unknownCount makes the next request find out how many plugins there are.
const unknownCount = 1

var _ adaptation.Metrics = (*witness)(nil)

// RecordPluginInvocation notes failures of requests that belong to a call: synchronizing is the library's.
func (w *witness) RecordPluginInvocation(plugin, request string, err error) {
	if err == nil || request == "Synchronize" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fault{plugin: plugin, request: request, err: err})
}

// RecordPluginLatency is of no use here.
func (w *witness) RecordPluginLatency(string, string, time.Duration) {}

// RecordPluginAdjustments notes who wants what.
func (w *witness) RecordPluginAdjustments(plugin, _ string, adjust *api.ContainerAdjustment, _, _ int) {
	if adjust == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers = append(w.answers, answer{plugin: plugin, adjust: adjust})
}

// UpdatePluginCount is called after each request, and when a plugin has connected.
func (w *witness) UpdatePluginCount(count int) { w.plugins.Store(int64(count)) }

// take returns what was noted since the last take.
func (w *witness) take() ([]fault, []answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	faults, answers := w.faults, w.answers
	w.faults, w.answers = nil, nil
	return faults, answers
}

// ask makes one request to all plugins. It needs calls. The request goes on when ctx ends, for a plugin
// that is cut off in an answer is disconnected: the library bounds it.
func (a *Adapter) ask(ctx context.Context, request func(context.Context) error) ([]answer, error) {
	a.witness.take()
	err := request(context.WithoutCancel(ctx))
	faults, answers := a.witness.take()
	return answers, a.blame(err, faults)
}

// blame makes one error of what went wrong. A plugin that is gone is none: it may end at any time. One that
// does not answer in time is disconnected by the library, which goes on without it; here that is an error
// once, for the pod would lack what the plugin gives it, and a client tries again. Causes are not wrapped: they
// have codes of the plugin's own making, which are none of CRI's.
func (a *Adapter) blame(err error, faults []fault) error {
	faults = slices.DeleteFunc(faults, func(f fault) bool { return errors.Is(f.err, ttrpc.ErrClosed) })
	if len(faults) == 0 {
		if err != nil {
			return fmt.Errorf("%w: %s", ErrPlugin, err.Error())
		}
		return nil
	}
	f := faults[len(faults)-1]
	if errors.Is(f.err, context.DeadlineExceeded) {
		return fmt.Errorf("%w %s: %s: no answer within %s, it is disconnected", ErrPlugin, f.plugin, f.request, a.opts.RequestTimeout)
	}
	return fmt.Errorf("%w %s: %s: %s", ErrPlugin, f.plugin, f.request, f.err.Error())
}
