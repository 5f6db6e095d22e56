package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// Sandboxes are the records of a node.
type Sandboxes interface {
	// All returns every record, also of sandboxes that are being made.
	All() []sandbox.Record
	// Strays returns what is left of sandboxes that have no record; RemoveStray takes it away.
	Strays(ctx context.Context, mine func(owner uint32) bool) ([]sandbox.Stray, error)
	RemoveStray(ctx context.Context, s sandbox.Stray) error
}

// Engine is what containerd has of userns-shim's.
type Engine interface {
	// Layers are the writable layers of containers of pods with a user namespace, with their ids, by key.
	Layers(ctx context.Context) (map[string]idpool.Range, error)
	// Containers are the ids of the containers that userns-shim made.
	Containers(ctx context.Context) ([]string, error)
}

// Options are what a Reconciler needs; all fields are required.
type Options struct {
	DB        *state.DB
	Pool      *idpool.Pool
	Sandboxes Sandboxes
	Engine    Engine
	// Look takes a look at the node's processes, and NamespaceOwner another one at a namespace of it: it returns the host id of who made
	// that, and an error where the process is not in it any more.
	Look           func(context.Context) (*hostids.Look, error)
	NamespaceOwner func(hostids.Namespace) (uint32, error)
	// Sync brings what is kept outside of the database in line with it.
	Sync func() error
	// Known says whether a sandbox or container of the id has a record.
	Known func(id string) bool
	Clock clock.PassiveClock
}

// Reconciler finds and repairs leaks.
type Reconciler struct {
	opts Options

	running chan struct{} // has room for one run at a time

	mu       sync.Mutex
	last     Report
	found    map[Kind]uint64 // since the start, each leak once
	repaired map[Kind]uint64
}

// New returns a Reconciler that has found nothing yet.
func New(opts Options) *Reconciler {
	return &Reconciler{opts: opts, running: make(chan struct{}, 1), found: map[Kind]uint64{}, repaired: map[Kind]uint64{}}
}

// Timeout bounds each of the runs that Run makes, should containerd hang.
const Timeout = time.Minute

// share is the part of the time at most that runs take: on a large node the pauses grow.
const share = 0.02

// Run looks again and again until ctx ends, with pauses of at least the interval; 0 looks never.
func (r *Reconciler) Run(ctx context.Context, interval time.Duration) {
	if interval <= 0 {
		return
	}
	pause := interval
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		began := time.Now()
		r.again(ctx)
		pause = max(interval, time.Duration(float64(time.Since(began))/share))
	}
}

func (r *Reconciler) again(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	if _, err := r.Once(bounded); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Look for leaked id ranges")
	}
}

// Once compares and repairs now, when no other run does. It goes on after an error, and reports what it found all the same;
// where ctx ended before its turn came, what the last run found.
func (r *Reconciler) Once(ctx context.Context) (Report, error) {
	select {
	case r.running <- struct{}{}:
		defer func() { <-r.running }()
	case <-ctx.Done():
		return r.Findings(), fmt.Errorf("wait for the look for leaks that is under way: %w", context.Cause(ctx))
	}
	report := Report{Began: r.opts.Clock.Now()}
	var errs []error
	for _, l := range r.looks() {
		found, err := l.look(ctx)
		if err != nil {
			found = append(found, r.earlier(l.kinds, found)...)
		}
		report.Findings = append(report.Findings, found...)
		errs = append(errs, err)
	}
	// At the end: what was removed needs no copy of its record any more.
	errs = append(errs, r.opts.Sync())
	report.Err = errors.Join(errs...)
	report.Took = r.opts.Clock.Since(report.Began)
	sortFindings(report.Findings)
	return r.keep(ctx, report), report.Err
}

// look is a part of a run, and the kinds of leaks that it finds.
type look struct {
	kinds []Kind
	look  func(context.Context) ([]Finding, error)
}

func (r *Reconciler) looks() []look {
	return []look{
		{[]Kind{KindLedger, KindRecord}, func(context.Context) ([]Finding, error) { return r.ledger() }},
		{[]Kind{KindPin}, r.pins},
		{[]Kind{KindProcess}, r.processes},
		{[]Kind{KindLayer}, r.layers},
		{[]Kind{KindContainer}, r.containers},
	}
}

// earlier returns what the last run left unrepaired of the kinds and is not found already. A look that failed does not say that it is gone.
func (r *Reconciler) earlier(kinds []Kind, found []Finding) []Finding {
	return slices.DeleteFunc(r.Findings().Findings, func(f Finding) bool {
		return f.Repaired() || !slices.Contains(kinds, f.Kind) ||
			slices.ContainsFunc(found, func(now Finding) bool { return now.key() == f.key() })
	})
}

// logged is how many findings of one run have a line each in the log: a ledger that was restored from elsewhere
// can make one of every range.
const logged = 50

// keep remembers a report, counts and logs what is new in it.
func (r *Reconciler) keep(ctx context.Context, report Report) Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := map[string]Finding{}
	for _, f := range r.last.Findings {
		if !f.Repaired() {
			before[f.key()] = f
		}
	}
	told := 0
	for i := range report.Findings {
		f := &report.Findings[i]
		known, seen := before[f.key()]
		f.Since = report.Began
		if seen {
			f.Since = known.Since
		} else {
			r.found[f.Kind]++
		}
		if f.Repaired() {
			r.repaired[f.Kind]++
		}
		if !seen || f.Repaired() {
			if told++; told <= logged {
				logFinding(ctx, *f)
			}
		}
	}
	if told > logged {
		klog.FromContext(ctx).Info("More id ranges leaked; pool check tells of what is left", "count", told-logged)
	}
	r.last = report
	r.last.Findings = remembered(report.Findings)
	return report
}

// rememberedRepairs is how many findings that were repaired are kept until the next run: nothing but a look at them needs
// them, and there can be one of every range.
const rememberedRepairs = 1000

// remembered returns the findings that are left, and the first ones that were repaired.
func remembered(found []Finding) []Finding {
	var kept []Finding
	repaired := 0
	for _, f := range found {
		if f.Repaired() {
			repaired++
		}
		if !f.Repaired() || repaired <= rememberedRepairs {
			kept = append(kept, f)
		}
	}
	return kept
}

func logFinding(ctx context.Context, f Finding) {
	logger := klog.FromContext(ctx).WithValues("kind", f.Kind, "range", f.Range, "pod", f.Pod, "sandbox", f.Sandbox, "found", f.Found)
	if f.Repaired() {
		logger.Info("Leaked id range repaired", "repair", f.Repair)
		return
	}
	logger.Info("Leaked id range is left as it is", "remedy", f.Remedy)
}

// Findings returns what the last run found, what it repaired included; of many repairs the first ones.
func (r *Reconciler) Findings() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := r.last
	report.Findings = slices.Clone(report.Findings)
	return report
}

// Counts are what was found and repaired since the start, by kind, each leak once.
func (r *Reconciler) Counts() (found, repaired map[Kind]uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.found), maps.Clone(r.repaired)
}

// Leaked counts the ranges of idpool.Unit ids that leaked and are not repaired, by segment.
func (r *Reconciler) Leaked() map[idpool.Segment]int {
	slots := map[uint32]bool{}
	for _, f := range r.Findings().Findings {
		if f.Repaired() || f.Range.Length == 0 {
			continue
		}
		for slot, last := f.Range.Start/idpool.Unit, uint32((f.Range.End()-1)/idpool.Unit); slot <= last; slot++ {
			slots[slot] = true
		}
	}
	leaked := map[idpool.Segment]int{}
	for slot := range slots {
		leaked[r.segmentOf(idpool.Range{Start: slot * idpool.Unit, Length: idpool.Unit})]++
	}
	return leaked
}

// segmentOf is that of the ledger.
func (r *Reconciler) segmentOf(part idpool.Range) idpool.Segment {
	for _, segment := range []idpool.Segment{idpool.SegmentPool, idpool.SegmentKubelet} {
		if slices.ContainsFunc(r.opts.Pool.Extents(segment), func(e idpool.Range) bool { return e.ContainsRange(part) }) {
			return segment
		}
	}
	return idpool.SegmentExternal
}
