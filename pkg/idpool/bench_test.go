package idpool

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// benchTx is a transaction that always commits, without the price of a database:
// what is measured is the pool.
type benchTx struct{ fakeTx }

func (tx *benchTx) OnRollback(func()) {}

func newBenchTx() *benchTx { return &benchTx{fakeTx{records: map[string][]byte{}}} }

// fullPool returns a pool of all ranges that exist, each of them allocated but
// the one at the slot left.
func fullPool(tb testing.TB, left int) (*Pool, *benchTx) {
	tb.Helper()
	o := everything()
	o.Claims = ClaimsPermissive // systemd's range too
	b := newBenchTx()
	p, err := Load(b, o)
	if err != nil {
		tb.Fatal(err)
	}
	for slot := 1; slot < slotCount-1; slot++ {
		if slot == left {
			continue
		}
		if err := p.Claim(b, benchPod(slot), benchSandbox(slot), slotRange(slot, 1)); err != nil {
			tb.Fatal(err)
		}
	}
	return p, b
}

// benchPod and benchSandbox are as long as real ones.
func benchPod(i int) PodUID     { return PodUID(fmt.Sprintf("6d3b1c2e-93a4-4f0b-8b5e-%012x", i)) }
func benchSandbox(i int) string { return fmt.Sprintf("%064x", i) }

func benchAcquireRelease(b *testing.B, p *Pool, tx *benchTx) {
	b.Helper()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := p.Acquire(tx, "pod", "sandbox", Unit); err != nil {
			b.Fatal(err)
		}
		if err := p.Release(tx, "sandbox"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAcquireReleaseEmpty(b *testing.B) {
	tx := newBenchTx()
	p, err := Load(tx, everything())
	if err != nil {
		b.Fatal(err)
	}
	benchAcquireRelease(b, p, tx)
}

func BenchmarkAcquireReleaseOneFreeInTheMiddle(b *testing.B) {
	p, tx := fullPool(b, 40_000)
	benchAcquireRelease(b, p, tx)
}

// All ranges are in use by turns: each step releases one and acquires it again.
func BenchmarkReleaseAcquireFull(b *testing.B) {
	p, tx := fullPool(b, -1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		slot := 1 + i*7919%(slotCount-2)
		if slot == foreignSlot {
			continue
		}
		if err := p.Release(tx, benchSandbox(slot)); err != nil {
			b.Fatal(err)
		}
		if _, err := p.Acquire(tx, benchPod(slot), benchSandbox(slot), Unit); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClaimReleaseFull(b *testing.B) {
	p, tx := fullPool(b, 40_000)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Claim(tx, "pod", "sandbox", slotRange(40_000, 1)); err != nil {
			b.Fatal(err)
		}
		if err := p.Release(tx, "sandbox"); err != nil {
			b.Fatal(err)
		}
	}
}

// Every second range is taken, which is the worst for a search of two in a row.
func BenchmarkAcquireTwoOfChequered(b *testing.B) {
	tx := newBenchTx()
	p, err := Load(tx, everything())
	if err != nil {
		b.Fatal(err)
	}
	for slot := 1; slot < slotCount-3; slot += 2 {
		if err := p.Claim(tx, benchPod(slot), benchSandbox(slot), slotRange(slot, 1)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := p.Acquire(tx, "pod", "sandbox", 2*Unit)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Release(tx, "sandbox"); err != nil {
			b.Fatal(err)
		}
		_ = r
	}
}

func BenchmarkRefusalWhenExhausted(b *testing.B) {
	p, tx := fullPool(b, -1)
	for b.Loop() {
		if _, err := p.Acquire(tx, "pod", "sandbox", Unit); err == nil {
			b.Fatal("a full pool gave a range")
		}
	}
}

func BenchmarkStatsFull(b *testing.B) {
	p, _ := fullPool(b, -1)
	for b.Loop() {
		p.Stats()
	}
}

func BenchmarkListFull(b *testing.B) {
	p, _ := fullPool(b, -1)
	for b.Loop() {
		p.List()
	}
}

// TestScale holds the limits that the product promises for every range that
// exists, in processor time, with room for the race detector: the benchmarks tell
// the real figures.
func TestScale(t *testing.T) {
	full, tx := fullPool(t, -1)
	if got := len(full.List()); got != 65534 {
		t.Fatalf("%d ranges", got)
	}
	full = nil
	before := heapInUse()
	o := everything()
	o.Claims = ClaimsPermissive
	start := CPUTime(t)
	p, err := Load(tx, o)
	if err != nil {
		t.Fatal(err)
	}
	took := CPUTime(t) - start
	held := heapInUse() - before
	t.Logf("loaded 65,534 records in %v, holding %d KiB", took, held>>10)
	if took > 2*time.Second*raceFactor {
		t.Errorf("loading took %v", took)
	}
	if held > 64<<20 {
		t.Errorf("the pool holds %d MiB", held>>20)
	}
	const rounds = 2000
	start = CPUTime(t)
	for range rounds {
		if err := p.Release(tx, benchSandbox(40_000)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Acquire(tx, benchPod(40_000), benchSandbox(40_000), Unit); err != nil {
			t.Fatal(err)
		}
	}
	mean := (CPUTime(t) - start) / rounds
	t.Logf("a release and an acquire take %v", mean)
	if mean > 50*time.Microsecond*raceFactor {
		t.Errorf("a release and an acquire take %v", mean)
	}
	runtime.KeepAlive(p)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
