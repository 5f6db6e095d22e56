package idpool_test

import (
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/state"
)

const (
	// requestLimit is what a claim or an acquire may take of a processor outside of its commit.
	requestLimit = 50 * time.Microsecond
	// requestRounds are measured at each degree of filling, each in a transaction of its own.
	requestRounds = 100
	// measured is the number of ranges: all that exist, but for the race detector.
	measured = allRanges / idpool.RaceFactor
)

// threadTime is what this thread has used of a processor: neither waiting nor another thread's work counts.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// ledger is a pool in a database.
type ledger struct {
	db   *state.DB
	pool *idpool.Pool
}

func (l *ledger) update(t *testing.T, change func(b idpool.Bucket) error) {
	t.Helper()
	if err := l.db.Update(func(tx *state.Tx) error { return change(tx.Raw("idpool")) }); err != nil {
		t.Fatal(err)
	}
}

func slotRange(slot, units int) idpool.Range {
	return idpool.Range{Start: uint32(slot) * idpool.Unit, Length: uint32(units) * idpool.Unit}
}

// filled returns a ledger whose first n slots went through fill.
func filled(t *testing.T, n int, fill func(p *idpool.Pool, b idpool.Bucket, slot int) error) *ledger {
	t.Helper()
	db, err := state.Open(state.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &ledger{db: db}
	l.update(t, func(b idpool.Bucket) (err error) {
		l.pool, err = idpool.Load(b, idpool.Options{
			KubeletExtents: []idpool.Range{}, Extents: []idpool.Range{slotRange(1, measured)}, Claims: idpool.ClaimsPermissive,
		})
		return err
	})
	for first := 1; first <= n; first += 4096 {
		l.update(t, func(b idpool.Bucket) error {
			for slot := first; slot < min(first+4096, n+1); slot++ {
				if err := fill(l.pool, b, slot); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return l
}

func allocate(p *idpool.Pool, b idpool.Bucket, slot int) error {
	return p.Claim(b, podName(slot), sandboxName(slot), slotRange(slot, 1))
}

func allocateBut(left int) func(*idpool.Pool, idpool.Bucket, int) error {
	return func(p *idpool.Pool, b idpool.Bucket, slot int) error {
		if slot == left {
			return nil
		}
		return allocate(p, b, slot)
	}
}

func allocateEverySecond(p *idpool.Pool, b idpool.Bucket, slot int) error {
	if slot%2 == 0 || slot > measured-4 {
		return nil
	}
	return allocate(p, b, slot)
}

func allocateAndRelease(p *idpool.Pool, b idpool.Bucket, slot int) error {
	return errors.Join(allocate(p, b, slot), p.Release(b, sandboxName(slot)))
}

// request is a claim or an acquire for a pod that is new to the pool.
type request func(p *idpool.Pool, b idpool.Bucket) error

func acquire(units uint32) request {
	return func(p *idpool.Pool, b idpool.Bucket) error {
		_, err := p.Acquire(b, podName(0), sandboxName(0), units*idpool.Unit)
		return err
	}
}

func claim(slot int) request {
	return func(p *idpool.Pool, b idpool.Bucket) error {
		return p.Claim(b, podName(0), sandboxName(0), slotRange(slot, 1))
	}
}

// TestRequestsStayFast holds what a pod waits for apart from the disk, however full the pool is: what happens between the
// begin and the commit of a transaction of a real database.
func TestRequestsStayFast(t *testing.T) {
	const n = measured
	for name, c := range map[string]struct {
		ledger   func(t *testing.T) *ledger
		requests map[string]request
		refused  bool
	}{
		"empty": {
			ledger:   func(t *testing.T) *ledger { return filled(t, 0, allocate) },
			requests: map[string]request{"acquire": acquire(1), "acquire 16": acquire(16), "claim": claim(n / 2)},
		},
		"one left": {
			ledger:   func(t *testing.T) *ledger { return filled(t, n, allocateBut(n/2)) },
			requests: map[string]request{"acquire": acquire(1), "claim": claim(n / 2)},
		},
		"every second": {
			ledger:   func(t *testing.T) *ledger { return filled(t, n, allocateEverySecond) },
			requests: map[string]request{"acquire": acquire(1), "acquire 2": acquire(2), "claim": claim(n / 2 &^ 1)},
		},
		"all at rest": {
			ledger:   func(t *testing.T) *ledger { return filled(t, n, allocateAndRelease) },
			requests: map[string]request{"acquire": acquire(1), "acquire 2": acquire(2), "claim": claim(n / 2)},
		},
		"full": {
			ledger:   func(t *testing.T) *ledger { return filled(t, n, allocate) },
			requests: map[string]request{"acquire": acquire(1), "acquire 16": acquire(16), "claim": claim(n / 2)},
			refused:  true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.ledger(t)
			for name, request := range c.requests {
				took := l.best(t, request, c.refused)
				t.Logf("%s: %v", name, took)
				if took > requestLimit*idpool.RaceFactor {
					t.Errorf("%s takes %v of a processor, want at most %v", name, took, requestLimit)
				}
			}
		})
	}
}

// best returns what a request takes in the best of the rounds: on a busy machine others find their caches cold, or
// measure what the kernel did meanwhile. Each that is granted is released again.
func (l *ledger) best(t *testing.T, request request, refused bool) time.Duration {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var took []time.Duration
	for range requestRounds {
		l.update(t, func(b idpool.Bucket) error {
			began := threadTime(t)
			err := request(l.pool, b)
			took = append(took, threadTime(t)-began)
			if (err != nil) != refused {
				t.Fatalf("want a refusal: %v; %v", refused, err)
			}
			return nil
		})
		l.update(t, func(b idpool.Bucket) error { return l.pool.Release(b, sandboxName(0)) })
	}
	return slices.Min(took)
}
