package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// allRanges is how many ranges of 65,536 ids exist: without the host's ids and those that hold -1.
const allRanges = 65534

// fillLedger makes entries for all ranges in the database of a daemon that is not running, the way that the pool does.
func fillLedger(t *testing.T, n *nodetest.Node, enter func(p *idpool.Pool, b idpool.Bucket, slot int, r idpool.Range) error) {
	t.Helper()
	db, err := state.Open(state.Options{Path: filepath.Join(n.Daemon.Root, "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	var pool *idpool.Pool
	const batch = 4096
	for first := 1; first <= allRanges && err == nil; first += batch {
		err = db.Update(func(tx *state.Tx) (err error) {
			b := tx.Raw(sandbox.PoolBucket)
			if pool == nil {
				if pool, err = idpool.Load(b, idpool.Options{Extents: []idpool.Range{everyRange()}, Claims: idpool.ClaimsPermissive}); err != nil {
					return err
				}
			}
			for slot := first; slot < first+batch && slot <= allRanges && err == nil; slot++ {
				err = enter(pool, b, slot, idpool.Range{Start: uint32(slot) * idpool.Unit, Length: idpool.Unit})
			}
			return err
		})
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func everyRange() idpool.Range {
	return idpool.Range{Start: idpool.Unit, Length: allRanges * idpool.Unit}
}

// setLedger stops the daemon, gives it a database with the entries of fill or an empty one, and starts it. It returns how
// long that took.
func setLedger(t *testing.T, n *nodetest.Node, fill func(p *idpool.Pool, b idpool.Bucket, slot int, r idpool.Range) error) time.Duration {
	t.Helper()
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(n.Daemon.Root, "state.db")); err != nil {
		t.Fatal(err)
	}
	if fill != nil {
		fillLedger(t, n, fill)
	}
	began := time.Now()
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// Names as long as real ones.
func scalePod(slot int) idpool.PodUID {
	return idpool.PodUID(fmt.Sprintf("6d3b1c2e-93a4-4f0b-8b5e-%012x", slot))
}
func scaleSandbox(slot int) string { return fmt.Sprintf("%064x", slot) }

const (
	// recordsStart and recordsLimit are what a daemon may take for a record of every range: of time until it serves, and of memory
	// beyond that of a daemon without records.
	recordsStart = 2 * time.Second
	recordsLimit = 64 << 20
	// leakedStart is for a start that finds every range leaked and repairs it.
	leakedStart = 4 * time.Second
)

// TestEveryRange: a daemon whose ledger has an entry for every range that exists, half of them reserved and half at
// rest, starts, lists them, serves metrics and names, and runs a pod in the one range that is left.
func TestEveryRange(t *testing.T) {
	n := everyRangeNode(t)
	setLedger(t, n, nil)
	empty := use(t, n)
	left := int(n.Pool().Start / idpool.Unit)
	took := setLedger(t, n, func(p *idpool.Pool, b idpool.Bucket, slot int, r idpool.Range) error {
		switch {
		case slot == left:
			return nil
		case slot%2 == 0:
			return p.Reserve(b, string(scalePod(slot)), r)
		}
		return errors.Join(p.Claim(b, scalePod(slot), scaleSandbox(slot), r), p.Release(b, scaleSandbox(slot)))
	})
	started := use(t, n)
	t.Logf("without records %v", empty)
	t.Logf("with records %v, %v until it served, %v of which a thread waited for a processor", started, took.Round(time.Millisecond), started.Waited.Round(time.Millisecond))
	// What others do on the machine is no time of the start: a thread of it waits meanwhile.
	if took -= started.Waited; started.CPU > recordsStart || took > recordsStart {
		t.Errorf("the start takes %v, and %v of processor time, want at most %v", took, started.CPU, recordsStart)
	}
	pod := n.RunPod(t, named("last"))
	if got := pod.Range(t); got != n.Pool().Start {
		t.Errorf("the pod has the range %d, want %d, the only one that is free", got, n.Pool().Start)
	}
	wantName(t, n, pod.Range(t)+1000, idName("-last", pod.Range(t), 1000))
	for range 3 {
		before := use(t, n)
		if ranges := listEntries(t, n); len(ranges) != allRanges {
			t.Errorf("%d ranges are listed", len(ranges))
		}
		list := use(t, n)
		wantSum(t, n, allRanges)
		scraped := use(t, n)
		wantStatusPage(t, n)
		page := use(t, n)
		t.Logf("list %v, metrics %v, status page %v; then %v", list.CPU-before.CPU, scraped.CPU-list.CPU, page.CPU-scraped.CPU, page)
		wantMemory(t, empty, page)
	}
}

// TestEveryRangeLeaked: a start that finds no sandbox for any range repairs all of them, at a price that is known.
func TestEveryRangeLeaked(t *testing.T) {
	n := everyRangeNode(t)
	empty := use(t, n)
	took := setLedger(t, n, func(p *idpool.Pool, b idpool.Bucket, slot int, r idpool.Range) error {
		return p.Claim(b, scalePod(slot), scaleSandbox(slot), r)
	})
	used := use(t, n)
	t.Logf("without records %v", empty)
	t.Logf("%v until it served, %v", took.Round(time.Millisecond), used)
	if used.CPU > leakedStart {
		t.Errorf("the start takes %v of processor time, want at most %v", used.CPU, leakedStart)
	}
	eventually(t, "all ranges are repaired", func() bool {
		return metric(t, n, `userns_shim_idpool_leaks_repaired_total{kind="ledger"}`) == allRanges
	})
	for _, r := range listEntries(t, n) {
		if r.State == "allocated" {
			t.Fatalf("%+v is allocated to a sandbox that does not exist", r)
		}
	}
	wantStatusPage(t, n)
	used = use(t, n)
	t.Logf("after list and status page %v", used)
	wantMemory(t, empty, used)
}

// wantMemory holds what the records of all ranges take, by what the daemon uses without and with them.
func wantMemory(t *testing.T, empty, with usage) {
	t.Helper()
	if grown := int64(with.Anon) - int64(empty.Anon); grown > recordsLimit {
		t.Errorf("the records take %.1f MiB, want at most %.0f", mib(uint64(grown)), mib(recordsLimit))
	}
}

// everyRangeNode is a node whose pool is all ids. It runs alone: the processes of other nodes have ids of its pool.
func everyRangeNode(t *testing.T) *nodetest.Node {
	t.Helper()
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Claims: "permissive", Quarantine: "24h"}})
	setExtents(t, n, labnode.Extent(everyRange()))
	return n
}

func listEntries(t *testing.T, n *nodetest.Node) (ranges []admin.Range) {
	t.Helper()
	if err := json.Unmarshal([]byte(wantPool(t, n, "list", "-o", "json")), &ranges); err != nil {
		t.Fatal(err)
	}
	return ranges
}

// wantSum holds that one scrape of the metrics knows of as many ranges as there are entries. Those that only wait for
// their age count as free.
func wantSum(t *testing.T, n *nodetest.Node, want int) {
	t.Helper()
	resp, err := n.World.HTTPClient().Get(n.MetricsURL())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	ranges := regexp.MustCompile(`(?m)^userns_shim_idpool_ranges\{segment="[a-z]+",state="(?:free|allocated|quarantined|reserved|external)"\} (\S+)$`)
	sum := 0.0
	for _, found := range ranges.FindAllStringSubmatch(string(text), -1) {
		count, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += count
	}
	if sum != float64(want) {
		t.Errorf("metrics count %v ranges, want %d", sum, want)
	}
}

// wantStatusPage holds that the page comes as a whole.
func wantStatusPage(t *testing.T, n *nodetest.Node) {
	t.Helper()
	resp, err := n.World.HTTPClient().Get(strings.TrimSuffix(n.MetricsURL(), "/metrics") + "/statusz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), "</html>") {
		t.Errorf("status page: %s, %d bytes, %v", resp.Status, len(text), err)
	}
}
