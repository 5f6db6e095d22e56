package engine_test

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/pkg/container"
)

// cycle creates, starts, awaits and deletes a task on b's root filesystem.
func (b *box) cycle(ctx context.Context) error {
	one, err := b.another("true")
	if err != nil {
		return err
	}
	if _, err := b.l.CreateTask(ctx, one.group, one.id, container.Stdio{}); err != nil {
		return err
	}
	if err := b.l.StartTask(ctx, one.id); err != nil {
		return err
	}
	if exit, err := b.l.WaitTask(ctx, one.id); err != nil || exit.Code != 0 {
		return fmt.Errorf("wait: %+v: %w", exit, err)
	}
	if _, err := b.l.DeleteTask(ctx, one.group, one.id); err != nil {
		return err
	}
	return b.l.DeleteRecord(ctx, one.id)
}

// TestGroupIsEmptiedAndFilled runs 500 tasks in one group. Without turns, most creates that come while the
// shim ends are cut off.
func TestGroupIsEmptiedAndFilled(t *testing.T) {
	l := newLab(t)
	demo := l.pull(labimage.Demo)
	b := l.newBox(demo, newID(), "true")

	t.Run("one after another", func(t *testing.T) {
		for i := range 60 {
			if err := b.cycle(t.Context()); err != nil {
				t.Fatalf("cycle %d: %v", i, err)
			}
		}
	})
	t.Run("side by side", func(t *testing.T) {
		const workers, cycles = 5, 88
		failures := make(chan error, workers*cycles)
		var done sync.WaitGroup
		for range workers {
			done.Go(func() {
				for range cycles {
					if err := b.cycle(t.Context()); err != nil {
						failures <- err
					}
				}
			})
		}
		done.Wait()
		close(failures)
		for err := range failures {
			t.Error(err)
		}
	})
}

// TestGroupSurvivesFailedCreates mixes creates that fail, at which containerd tells the shim to end when it has
// no task, with others.
func TestGroupSurvivesFailedCreates(t *testing.T) {
	l := newLab(t)
	b := l.newBox(l.pull(labimage.Demo), newID(), "true")
	errs := make(chan error, 100)
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			for range 10 {
				errs <- b.cycle(t.Context())
			}
		})
	}
	for range 2 {
		done.Go(func() {
			for range 10 {
				errs <- b.failingCycle(t.Context())
			}
		})
	}
	done.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestFirstCreateFails: nothing is left of the shim of the first task ever, wherever containerd has shims listen. The
// lab's check names its socket.
func TestFirstCreateFails(t *testing.T) {
	l := newLab(t)
	image := l.pull(labimage.Demo)
	for range 3 {
		fresh := l.in(t)
		fresh.Engine = l.newEngine(engineOptions()) // which knows of no shim
		if err := fresh.newBox(image, newID(), "true").failingCycle(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func (b *box) failingCycle(ctx context.Context) error {
	one, err := b.another("no-such-command")
	if err != nil {
		return err
	}
	if _, err := b.l.CreateTask(ctx, one.group, one.id, container.Stdio{}); err == nil {
		return fmt.Errorf("created a task whose command is missing")
	}
	if _, err := b.l.DeleteTask(ctx, one.group, one.id); !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete after a failed create: %w", err)
	}
	return b.l.DeleteRecord(ctx, one.id)
}

// TestGroupIsFoundAgain: a new engine finds the tasks of a group that another engine left, and so keeps
// the shim from ending under its creates.
func TestGroupIsFoundAgain(t *testing.T) {
	l := newLab(t)
	b := l.newBox(l.pull(labimage.Demo), newID(), "sleep", "infinity")
	b.start(container.Stdio{})
	if err := l.KillTask(t.Context(), b.id, uint32(syscall.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	if _, err := l.WaitTask(t.Context(), b.id); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		fresh := l.in(t)
		fresh.Engine = fresh.newEngine(engineOptions())
		next, err := (&box{l: fresh, group: b.group, spec: b.spec}).another("true")
		if err != nil {
			t.Fatal(err)
		}
		var done sync.WaitGroup
		done.Go(func() {
			if _, err := fresh.DeleteTask(t.Context(), b.group, b.id); err != nil {
				t.Errorf("delete the only task: %v", err)
			}
		})
		done.Go(func() {
			if _, err := fresh.CreateTask(t.Context(), b.group, next.id, container.Stdio{}); err != nil {
				t.Errorf("create beside the delete: %v", err)
			}
		})
		done.Wait()
		if err := fresh.StartTask(t.Context(), next.id); err != nil {
			t.Fatal(err)
		}
		if _, err := fresh.WaitTask(t.Context(), next.id); err != nil {
			t.Fatal(err)
		}
		b = next
		t.Cleanup(b.remove)
	}
}

// BenchmarkCycle shows what a task costs in a group that it empties, and in one that it does not.
func BenchmarkCycle(b *testing.B) {
	l := newLab(b)
	demo := l.pull(labimage.Demo)
	for _, anchored := range []bool{false, true} {
		b.Run(fmt.Sprintf("anchored=%v", anchored), func(b *testing.B) {
			l := l.in(b)
			x := l.newBox(demo, newID(), "sleep", "infinity")
			if anchored {
				x.start(container.Stdio{})
			}
			var creating, deleting time.Duration
			for b.Loop() {
				one, err := x.another("true")
				if err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				if _, err := l.CreateTask(b.Context(), one.group, one.id, container.Stdio{}); err != nil {
					b.Fatal(err)
				}
				creating += time.Since(began)
				if err := l.StartTask(b.Context(), one.id); err != nil {
					b.Fatal(err)
				}
				if _, err := l.WaitTask(b.Context(), one.id); err != nil {
					b.Fatal(err)
				}
				began = time.Now()
				if _, err := l.DeleteTask(b.Context(), one.group, one.id); err != nil {
					b.Fatal(err)
				}
				deleting += time.Since(began)
				if err := l.DeleteRecord(b.Context(), one.id); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(creating.Microseconds())/float64(b.N)/1000, "create-ms/op")
			b.ReportMetric(float64(deleting.Microseconds())/float64(b.N)/1000, "delete-ms/op")
		})
	}
}
