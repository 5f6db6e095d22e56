package idpool_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// allRanges is the number of ranges that exist.
const allRanges = 65534

// everyRange returns options under which each of the ranges that exist can
// be taken.
func everyRange() idpool.Options {
	return idpool.Options{
		KubeletExtents: []idpool.Range{},
		Extents:        []idpool.Range{{Start: idpool.Unit, Length: idpool.Invalid - idpool.Unit}},
		Claims:         idpool.ClaimsPermissive,
	}
}

func podName(i int) idpool.PodUID {
	return idpool.PodUID(fmt.Sprintf("6d3b1c2e-93a4-4f0b-8b5e-%012x", i))
}

func sandboxName(i int) string { return fmt.Sprintf("%064x", i) }

// fullDatabase makes a database with the first n ranges allocated.
func fullDatabase(tb testing.TB, n int) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "state.db")
	db, err := state.Open(state.Options{Path: path})
	if err != nil {
		tb.Fatal(err)
	}
	var pool *idpool.Pool
	for first := 1; first <= n; first += 4096 {
		err := db.Update(func(tx *state.Tx) (err error) {
			b := tx.Raw("idpool")
			if pool == nil {
				if pool, err = idpool.Load(b, everyRange()); err != nil {
					return err
				}
			}
			for i := first; i < min(first+4096, n+1); i++ {
				r := idpool.Range{Start: uint32(i) * idpool.Unit, Length: idpool.Unit}
				err = errors.Join(err, pool.Claim(b, podName(i), sandboxName(i), r))
			}
			return err
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		tb.Fatal(err)
	}
	return path
}

// TestStartWithAllRanges holds the time from a closed database to a usable pool,
// inspection of the file included.
func TestStartWithAllRanges(t *testing.T) {
	ranges := allRanges / idpool.RaceFactor // the race detector makes it 20 times as long
	path := fullDatabase(t, ranges)
	start, cpu := time.Now(), idpool.CPUTime(t)
	db, err := state.Open(state.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	opened := time.Since(start)
	var pool *idpool.Pool
	err = db.View(func(tx *state.Tx) (err error) {
		pool, err = idpool.Load(tx.Raw("idpool"), everyRange())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	took, used := time.Since(start), idpool.CPUTime(t)-cpu
	if got := len(pool.List()); got != ranges {
		t.Errorf("%d ranges", got)
	}
	info, err := os.Stat(path)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	t.Logf("opened in %v, loaded after %v (%v of processor), %d KiB on disk; %s", opened, took, used, info.Size()>>10, residentMemory())
	if used > 2*time.Second {
		t.Errorf("it took %v of processor time", used)
	}
}

// residentMemory is what the kernel says of this process, for the log alone.
func residentMemory() string {
	status, _ := os.ReadFile("/proc/self/status")
	var parts []string
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Rss") || strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") {
			parts = append(parts, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(parts, ", ")
}

func benchDurable(b *testing.B, path string, o idpool.Options) {
	b.Helper()
	db, err := state.Open(state.Options{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	var pool *idpool.Pool
	err = db.View(func(tx *state.Tx) (err error) {
		pool, err = idpool.Load(tx.Raw("idpool"), o)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	// What a request costs between the begin and the commit.
	var inside time.Duration
	for b.Loop() {
		err := db.Update(func(tx *state.Tx) error {
			start := time.Now()
			r := idpool.Range{Start: 40_000 * idpool.Unit, Length: idpool.Unit}
			err := pool.Release(tx.Raw("idpool"), sandboxName(40_000))
			err = errors.Join(err, pool.Claim(tx.Raw("idpool"), podName(40_000), sandboxName(40_000), r))
			inside += time.Since(start)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(inside.Nanoseconds())/float64(b.N), "ns-outside-commit/op")
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
}

// One release and one claim in one transaction of a real database.
func BenchmarkDurableReleaseClaimEmpty(b *testing.B) {
	benchDurable(b, filepath.Join(b.TempDir(), "state.db"), idpool.Options{})
}

func BenchmarkDurableReleaseClaimFull(b *testing.B) {
	benchDurable(b, fullDatabase(b, allRanges), everyRange())
}
