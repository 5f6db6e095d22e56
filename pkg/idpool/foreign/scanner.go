package foreign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// sourceTime is what one source may take before the others are told without it.
	sourceTime = 15 * time.Second
	// endTime is how long Run waits at its end for sources that hang.
	endTime = 2 * time.Second
)

// Options are what a Scanner needs. Ledger and Sources are required.
type Options struct {
	Ledger  Ledger
	Sources []Source
	// Observe, if set, is told of each scan.
	Observe func(Report)

	timeout time.Duration // sourceTime, unless a test says otherwise
}

// Source is one place where owners are.
type Source struct {
	name string
	// find adds what it finds. It should end soon after ctx does; the scanner goes on without it in any case.
	find func(ctx context.Context, c claims, f *found) error
}

// Name is that of the source in failures.
func (s Source) Name() string { return s.name }

// Scanner looks through all sources. Its methods may be called concurrently.
type Scanner struct {
	opts  Options
	ended sync.WaitGroup // sources that are being read

	scanning chan struct{} // holds a token while a scan runs

	mu   sync.Mutex
	last *Report              // nil before the first scan; never changes once it is set
	seen map[string]found     // by source, of its last whole reading
	busy map[string]time.Time // sources that are being read, since when
}

// New returns a scanner that has seen nothing yet.
func New(o Options) (*Scanner, error) {
	if o.Ledger == nil || len(o.Sources) == 0 {
		return nil, errors.New("new scanner of foreign owners: no ledger or no sources")
	}
	if o.timeout == 0 {
		o.timeout = sourceTime
	}
	return &Scanner{opts: o, scanning: make(chan struct{}, 1), seen: map[string]found{}, busy: map[string]time.Time{}}, nil
}

// Last returns what the last scan found, nil before the first one. It must not be changed.
func (s *Scanner) Last() *Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Run scans now and then at the interval, until ctx ends. It waits for a moment for sources that still are being read; those that
// hang in the kernel end with the process.
func (s *Scanner) Run(ctx context.Context, interval time.Duration) {
	for ctx.Err() == nil {
		_, _ = s.Scan(ctx) // its only error is that ctx ended
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		}
	}
	done := make(chan struct{})
	go func() { s.ended.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(endTime):
	}
}

// Scan looks through all sources at once. It takes sourceTime at most: sources that take longer are failures,
// and are not read again before they have ended. Scans take turns. The error is ctx's.
func (s *Scanner) Scan(ctx context.Context) (*Report, error) {
	select {
	case s.scanning <- struct{}{}:
		defer func() { <-s.scanning }()
	case <-ctx.Done():
		return nil, fmt.Errorf("scan for foreign owners of ids: %w", context.Cause(ctx))
	}
	began := time.Now()
	failed := s.readAll(ctx)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("scan for foreign owners of ids: %w", context.Cause(ctx))
	}
	report := s.report(began, failed)
	if s.opts.Observe != nil {
		s.opts.Observe(*report)
	}
	return report, nil
}

// result is how the reading of a source ended.
type result struct {
	source string
	err    error
}

// readAll returns when all sources are read or the time is over, with an error for each source that is not.
func (s *Scanner) readAll(ctx context.Context) map[string]error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.timeout)
	defer cancel()
	results := make(chan result, len(s.opts.Sources))
	failed := map[string]error{}
	waiting := 0
	for _, source := range s.opts.Sources {
		if since, busy := s.start(source); busy {
			failed[source.name] = fmt.Errorf("still being read since %s", since.Format(time.RFC3339))
			continue
		}
		waiting++
		failed[source.name] = fmt.Errorf("not read within %s", s.opts.timeout)
		s.ended.Go(func() { results <- result{source.name, s.read(ctx, source)} })
	}
	for ; waiting > 0; waiting-- {
		select {
		case r := <-results:
			delete(failed, r.source)
			if r.err != nil {
				failed[r.source] = r.err
			}
		case <-ctx.Done():
			return failed
		}
	}
	return failed
}

// start marks a source as being read, unless it is.
func (s *Scanner) start(source Source) (since time.Time, busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if since, busy = s.busy[source.name]; !busy {
		s.busy[source.name] = time.Now()
	}
	return since, busy
}

// read reads one source. What it found counts only when it was read to its end.
func (s *Scanner) read(ctx context.Context, source Source) error {
	var f found
	err := source.find(ctx, claimsOf(s.opts.Ledger), &f)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, source.name)
	if err == nil {
		s.seen[source.name] = f
	}
	return err
}

// report puts together what the sources showed last.
func (s *Scanner) report(began time.Time, failed map[string]error) *Report {
	r := &Report{Began: began, Counts: map[Kind]int{}}
	for _, kind := range Kinds() {
		r.Counts[kind] = 0
	}
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		r.Failed = append(r.Failed, Failure{Source: name, Err: failed[name]})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, source := range s.opts.Sources {
		f := s.seen[source.name]
		r.Owners = append(r.Owners, f.owners...)
		for kind, n := range f.counts {
			r.Counts[kind] += n
		}
	}
	sortOwners(r.Owners)
	r.Took = time.Since(began)
	s.last = r
	return r
}
