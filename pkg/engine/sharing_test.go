package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeyedLock(t *testing.T) {
	k := newKeyedLock()
	counts := map[string]*int{"a": new(int), "b": new(int)}
	var done sync.WaitGroup
	for range 20 {
		for key, count := range counts {
			done.Go(func() {
				if err := k.Lock(t.Context(), key); err != nil {
					t.Error(err)
					return
				}
				*count++ // the race detector watches
				k.Unlock(key)
			})
		}
	}
	done.Wait()
	if *counts["a"] != 20 || *counts["b"] != 20 {
		t.Errorf("counts %d and %d, want 20", *counts["a"], *counts["b"])
	}
	if err := k.Lock(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Lock(gone, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("wait for a held key: %v, want canceled", err)
	}
	k.Unlock("a")
	if len(k.keys) != 0 {
		t.Errorf("keys are left: %v", k.keys)
	}
}

func TestFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlights()
		var runs atomic.Int64
		slow := func(ctx context.Context) (string, error) {
			runs.Add(1)
			select {
			case <-time.After(time.Second):
				return "done", nil
			case <-ctx.Done():
				return "", context.Cause(ctx)
			}
		}
		impatient, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		var done sync.WaitGroup
		done.Go(func() {
			if _, err := f.do(impatient, "k", slow); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("impatient: %v", err)
			}
		})
		synctest.Wait()
		for range 3 {
			done.Go(func() {
				if got, err := f.do(t.Context(), "k", slow); err != nil || got != "done" {
					t.Errorf("patient: %q, %v", got, err)
				}
			})
		}
		done.Wait()
		if runs.Load() != 1 {
			t.Errorf("%d runs, want 1", runs.Load())
		}

		alone, leave := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		done.Go(func() {
			_, err := f.do(alone, "k", func(ctx context.Context) (string, error) {
				<-ctx.Done()
				ended <- context.Cause(ctx)
				return "", ctx.Err()
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("alone: %v", err)
			}
		})
		synctest.Wait()
		leave()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the run that nobody wants ends by %v", err)
		}
		done.Wait()

		done.Go(func() {
			if _, err := f.do(t.Context(), "k", slow); !errors.Is(err, errClosed) {
				t.Errorf("run at close: %v", err)
			}
		})
		synctest.Wait()
		if !f.close() || f.close() {
			t.Error("close does not tell the first call from the second")
		}
		done.Wait()
		if _, err := f.do(t.Context(), "k", slow); !errors.Is(err, errClosed) {
			t.Errorf("run after close: %v", err)
		}
		if len(f.byKey) != 0 {
			t.Errorf("flights are left: %v", f.byKey)
		}
	})
}
