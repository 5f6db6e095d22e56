package foreign

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

func newScanner(t *testing.T, o Options) *Scanner {
	t.Helper()
	o.Ledger = &fakeLedger{}
	if o.timeout == 0 {
		o.timeout = time.Minute // that of a test in which a source hangs is synctest's
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func scan(t *testing.T, s *Scanner) *Report {
	t.Helper()
	r, err := s.Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func anOwner() Owner { return Owner{Kind: KindNspawn, Range: unit(1), Who: "x", Where: "y"} }

// TestScanGoesOnWithoutASourceThatHangs, even one that does not heed its context, and never reads it twice at a time.
func TestScanGoesOnWithoutASourceThatHangs(t *testing.T) {
	synctest.Test(t, goesOnWithoutASourceThatHangs)
}

func goesOnWithoutASourceThatHangs(t *testing.T) {
	var started atomic.Int32
	release := make(chan struct{})
	s := newScanner(t, Options{Sources: []Source{
		sourceOf("hangs", func(context.Context, *found) error {
			started.Add(1)
			<-release
			return nil
		}),
		sourceOf("answers", func(_ context.Context, f *found) error { f.add(anOwner()); return nil }),
	}})
	before := runtime.NumGoroutine()
	for i := range 5 {
		began := time.Now()
		r := scan(t, s)
		if took := time.Since(began); took > s.opts.timeout {
			t.Errorf("scan %d took %s", i, took)
		}
		if len(r.Owners) != 1 || r.Counts[KindNspawn] != 1 || len(r.Failed) != 1 || r.Failed[0].Source != "hangs" {
			t.Fatalf("scan %d found %+v", i, r)
		}
	}
	if started.Load() != 1 {
		t.Errorf("the source was read %d times side by side", started.Load())
	}
	if more := runtime.NumGoroutine() - before; more > 2 {
		t.Errorf("%d goroutines more than before", more)
	}
	close(release)
	s.ended.Wait()
	if r := scan(t, s); len(r.Failed) != 0 || started.Load() != 2 {
		t.Errorf("after it came back: %+v, read %d times", r.Failed, started.Load())
	}
}

// TestScanKeepsWhatASourceShowedBefore: a source that cannot be read is no sign that owners are gone.
func TestScanKeepsWhatASourceShowedBefore(t *testing.T) {
	var fails error
	s := newScanner(t, Options{Sources: []Source{sourceOf("a", func(_ context.Context, f *found) error {
		if fails == nil {
			f.add(anOwner())
		}
		return fails
	})}})
	scan(t, s)
	fails = errors.New("disk")
	r := scan(t, s)
	if len(r.Owners) != 1 || len(r.Failed) != 1 || r.Failed[0].Err.Error() != "disk" {
		t.Errorf("found %+v", r)
	}
	if s.Last() != r {
		t.Error("Last is not the last report")
	}
}

func TestReportIsBounded(t *testing.T) {
	s := newScanner(t, Options{timeout: time.Minute, Sources: []Source{sourceOf("many", func(_ context.Context, f *found) error {
		for range 100000 {
			f.add(anOwner())
		}
		return nil
	})}})
	if r := scan(t, s); len(r.Owners) != maxOwners || r.Counts[KindNspawn] != 100000 {
		t.Errorf("%d owners kept of %d", len(r.Owners), r.Counts[KindNspawn])
	}
}

// TestRunEndsWhileASourceHangs in the kernel.
func TestRunEndsWhileASourceHangs(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	s := newScanner(t, Options{timeout: time.Hour, Sources: []Source{sourceOf("hangs", func(context.Context, *found) error {
		<-release
		return nil
	})}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.Run(ctx, time.Millisecond); close(done) }()
	time.Sleep(20 * time.Millisecond)
	cancel()
	select {
	case <-done:
	case <-time.After(endTime + 5*time.Second):
		t.Fatal("Run does not end")
	}
}

func TestObserveIsToldOfEachScan(t *testing.T) {
	var told []Report
	s := newScanner(t, Options{Observe: func(r Report) { told = append(told, r) }, Sources: []Source{
		sourceOf("a", func(_ context.Context, f *found) error { f.add(anOwner()); return nil }),
	}})
	scan(t, s)
	if len(told) != 1 || told[0].Counts[KindNspawn] != 1 || len(told[0].Counts) != len(Kinds()) {
		t.Errorf("told %+v", told)
	}
}

// BenchmarkScanOfManyLines is the cost on a node with a long list of users.
func BenchmarkScanOfManyLines(b *testing.B) {
	var text strings.Builder
	for i := range 100000 {
		fmt.Fprintf(&text, "user%d:x:%d:%d::/home:/bin/sh\n", i, 1000+i, 1000+i)
	}
	c := claimsOf(&fakeLedger{})
	b.ReportAllocs()
	for b.Loop() {
		var f found
		if err := forEachLine(strings.NewReader(text.String()), func(line string) { nameLine(c, &f, KindUser, line) }); err != nil {
			b.Fatal(err)
		}
	}
}

var _ Ledger = (*idpool.Pool)(nil)
