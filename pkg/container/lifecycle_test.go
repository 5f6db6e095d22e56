package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	clocktesting "k8s.io/utils/clock/testing"
)

// setClock replaces the manager's clock, as who sets a machine's does.
func (n *node) setClock(t *testing.T, at time.Time) {
	t.Helper()
	n.opts.Clock = clocktesting.NewFakePassiveClock(at)
	n.restart(t)
}

func TestSecondStopShortensTheFirst(t *testing.T) {
	n := newNode(t)
	n.engine.ignoreTerm = true
	id := n.mustStart(t, "a")
	first := make(chan error, 1)
	go func() { first <- n.Stop(t.Context(), id, time.Minute) }()
	for len(n.engine.sent()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := n.Stop(t.Context(), id, 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Errorf("the first stop: %v", err)
	}
	if got := n.engine.sent(); !slices.Equal(got, []uint32{2, killSignal}) {
		t.Errorf("signals %v were sent, want the image's SIGINT once and SIGKILL", got)
	}
}

// sent returns the signals that were sent so far.
func (f *fakeEngine) sent() []uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.signals)
}

// The engine's event of a kill for want of memory may come late, or never.
func TestOOMIsSeenInTheCgroup(t *testing.T) {
	n := newNode(t)
	id := n.mustStart(t, "a")
	n.engine.mu.Lock()
	n.engine.oomKilled = map[string]bool{id: true}
	n.engine.mu.Unlock()
	n.engine.end(id, 0)
	if rec := n.awaitExit(t, id); rec.Reason != ReasonOOMKilled || rec.ExitCode != 0 {
		t.Errorf("got reason %s, code %d", rec.Reason, rec.ExitCode)
	}
}

func TestReasonOfFailedStart(t *testing.T) {
	for _, tc := range []struct {
		name    string
		failure error
		want    string
	}{
		{"the runtime says no", errors.New("exec: not found"), ReasonCannotRun},
		{"the engine is away", fmt.Errorf("dial: %w", errdefs.ErrUnavailable), ReasonStartError},
		{"the engine is late", context.DeadlineExceeded, ReasonStartError},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t)
			id, err := n.Create(t.Context(), n.sb, containerSpec("a"))
			if err != nil {
				t.Fatal(err)
			}
			n.engine.fail, n.engine.failure = "create task", tc.failure
			err = n.Start(t.Context(), id)
			if !errors.Is(err, ErrStart) || !errors.Is(err, tc.failure) {
				t.Errorf("got %v", err)
			}
			if rec, _ := n.Get(id); rec.Reason != tc.want || rec.ExitCode != startErrorCode || rec.Message != err.Error() {
				t.Errorf("got reason %s, code %d, message %q", rec.Reason, rec.ExitCode, rec.Message)
			}
		})
	}
}

// A start whose answer was lost may have started the process.
func TestTaskOfFailedStartIsEndedOnRemove(t *testing.T) {
	n := newNode(t)
	id := n.mustStart(t, "a")
	rec, err := n.table.Change(id, func(rec *Record) { rec.State, rec.Reason = StateExited, ReasonStartError })
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	delete(n.running, rec.ID)
	n.mu.Unlock()
	if err := n.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.wantNothingLeft(t)
}

func TestTimestampsGrowWhenTheClockIsSetBack(t *testing.T) {
	n := newNode(t)
	begin := n.opts.Clock.Now()
	id, err := n.Create(t.Context(), n.sb, containerSpec("a"))
	if err != nil {
		t.Fatal(err)
	}
	n.setClock(t, begin.Add(-time.Hour))
	if err := n.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.engine.endAt(id, 1, begin.Add(-2*time.Hour))
	rec := n.awaitExit(t, id)
	if rec.StartedAt.Before(rec.CreatedAt) || rec.FinishedAt.Before(rec.StartedAt) {
		t.Errorf("created %s, started %s, finished %s", rec.CreatedAt, rec.StartedAt, rec.FinishedAt)
	}
	again := containerSpec("a")
	again.Metadata.Attempt = 1
	next, err := n.Create(t.Context(), n.sb, again)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := n.Get(next); !got.CreatedAt.After(rec.CreatedAt) {
		t.Errorf("attempt 1 was created at %s, attempt 0 at %s", got.CreatedAt, rec.CreatedAt)
	}
}

// A process that ends at once ends after it was started, however late its start is known.
func TestStartIsBeforeTheExit(t *testing.T) {
	n := newNode(t)
	id, err := n.Create(t.Context(), n.sb, containerSpec("a"))
	if err != nil {
		t.Fatal(err)
	}
	clock := clocktesting.NewFakePassiveClock(n.opts.Clock.Now())
	n.opts.Clock = clock
	n.restart(t)
	begin := clock.Now()
	n.engine.onStart = func(id string) {
		n.engine.endAt(id, 0, begin)
		clock.SetTime(begin.Add(time.Second))
	}
	if err := n.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if rec := n.awaitExit(t, id); rec.StartedAt.After(begin) || !rec.FinishedAt.Equal(begin) {
		t.Errorf("started %s, finished %s, want both at %s", rec.StartedAt, rec.FinishedAt, begin)
	}
}
