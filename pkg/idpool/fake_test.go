package idpool

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// fakeDB is a database in memory with the contract of Bucket.
type fakeDB struct {
	records map[string][]byte
}

// fakeTx is a transaction of it. It fails at the call number failAt, counted
// from 1 over Get, Put and Delete; 0 never.
type fakeTx struct {
	records map[string][]byte
	hooks   []func()
	calls   int
	failAt  int
}

var errDisk = errors.New("disk failed")

// update runs fn in a transaction and commits if fn succeeds.
func (db *fakeDB) update(fn func(b *fakeTx) error) error { return db.updateFailing(0, fn) }

func (db *fakeDB) updateFailing(failAt int, fn func(b *fakeTx) error) error {
	tx := &fakeTx{records: maps.Clone(db.records), failAt: failAt}
	if tx.records == nil {
		tx.records = map[string][]byte{}
	}
	if err := fn(tx); err != nil {
		for _, hook := range slices.Backward(tx.hooks) {
			hook()
		}
		return err
	}
	db.records = tx.records
	return nil
}

func (db *fakeDB) load(t testing.TB, o Options) *Pool {
	t.Helper()
	p, err := Load(&fakeTx{records: db.records}, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (tx *fakeTx) fail() error {
	if tx.calls++; tx.calls == tx.failAt {
		return errDisk
	}
	return nil
}

func (tx *fakeTx) Get(key string) ([]byte, error) { return tx.records[key], tx.fail() }

func (tx *fakeTx) Put(key string, value []byte) error {
	if err := tx.fail(); err != nil {
		return err
	}
	tx.records[key] = value
	return nil
}

func (tx *fakeTx) Delete(key string) error {
	if err := tx.fail(); err != nil {
		return err
	}
	delete(tx.records, key)
	return nil
}

func (tx *fakeTx) ForEach(fn func(string, []byte) error) error {
	for _, key := range slices.Sorted(maps.Keys(tx.records)) {
		if err := fn(key, tx.records[key]); err != nil {
			return err
		}
	}
	return nil
}

func (tx *fakeTx) OnRollback(fn func()) { tx.hooks = append(tx.hooks, fn) }

// fakeWitness reports the traces it was told, none for other ranges.
type fakeWitness map[Range]Trace

func (w fakeWitness) Traces(r Range, _ time.Time) Trace { return w[r] }

// testNode is a pool with what surrounds it, for tests that do not care about
// transactions: every call is one. What it tells rests on a look at the node that
// was taken just before; the model test has older ones.
type testNode struct {
	t       testing.TB
	db      fakeDB
	clock   *clocktesting.FakePassiveClock
	witness fakeWitness
	opts    Options
	*Pool
}

func epoch() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func newNode(t testing.TB, o Options) *testNode {
	n := &testNode{t: t, clock: clocktesting.NewFakePassiveClock(epoch()), witness: fakeWitness{}, opts: o}
	n.opts.Clock, n.opts.Witness = n.clock, n.witness
	n.reload()
	return n
}

// reload forgets the pool and loads it again, as a restart does.
func (n *testNode) reload() {
	n.t.Helper()
	n.Pool = n.db.load(n.t, n.opts)
}

func (n *testNode) pass(d time.Duration) { n.clock.SetTime(n.clock.Now().Add(d)) }

func (n *testNode) Stats() Stats {
	n.Review()
	return n.Pool.Stats()
}

func (n *testNode) acquire(pod PodUID, sandbox string, ids uint32) (r Range, err error) {
	n.Review()
	err = n.db.update(func(b *fakeTx) error {
		r, err = n.Acquire(b, pod, sandbox, ids)
		return err
	})
	return r, err
}

func (n *testNode) claim(pod PodUID, sandbox string, r Range) error {
	return n.db.update(func(b *fakeTx) error { return n.Claim(b, pod, sandbox, r) })
}

func (n *testNode) release(sandbox string) {
	n.t.Helper()
	if err := n.db.update(func(b *fakeTx) error { return n.Release(b, sandbox) }); err != nil {
		n.t.Fatal(err)
	}
}

func (n *testNode) reserve(name string, r Range) error {
	return n.db.update(func(b *fakeTx) error { return n.Reserve(b, name, r) })
}

func (n *testNode) mustAcquire(pod PodUID, sandbox string, ids uint32) Range {
	n.t.Helper()
	r, err := n.acquire(pod, sandbox, ids)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

func (n *testNode) mustClaim(pod PodUID, sandbox string, r Range) {
	n.t.Helper()
	if err := n.claim(pod, sandbox, r); err != nil {
		n.t.Fatal(err)
	}
}

// unit returns the n-th range of 65,536 ids of the default own extent.
func unit(n int) Range {
	return Range{Start: DefaultExtents()[0].Start + uint32(n)*Unit, Length: Unit}
}

// small returns options with an own extent of n ranges.
func small(n int) Options {
	return Options{Extents: []Range{{Start: unit(0).Start, Length: uint32(n) * Unit}}}
}

// everything returns options in which all 65,534 ranges that exist are the
// pool's own. One of them, systemd's, is never given.
func everything() Options {
	return Options{KubeletExtents: []Range{}, Extents: []Range{{Start: Unit, Length: Invalid - Unit}}}
}
