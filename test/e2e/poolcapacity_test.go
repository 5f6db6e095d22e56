package e2e

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestStatusTellsWhetherTheIDPoolHasCapacity: false with the segment's name when the last range is given away, true
// again when one is free; what kubelet judges the node by stays true.
func TestStatusTellsWhetherTheIDPoolHasCapacity(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 2, KubeletRanges: 1, Daemon: labnode.DaemonOptions{Quarantine: "1h"}})
	want := func(holds bool, says string) {
		t.Helper()
		if ok, message := condition(t, n, "IDPoolHasCapacity"); ok != holds || message != says {
			t.Errorf("IDPoolHasCapacity is %t: %s\nwant %t: %s", ok, message, holds, says)
		}
		for _, kind := range []string{runtimeapi.RuntimeReady, runtimeapi.NetworkReady} {
			if ok, message := condition(t, n, kind); !ok {
				t.Errorf("%s is false: %s", kind, message)
			}
		}
	}
	want(true, "RangesFree: segment pool: 2 of 2 ranges free; segment kubelet: 1 of 1 ranges free")
	n.RunPod(t)
	last := n.RunPod(t)
	want(false, "Exhausted: segment pool: 0 of 2 ranges free; segment kubelet: 1 of 1 ranges free")
	claimed := n.RunPod(t, nodetest.Mapping(n.Kubelet().Start))
	want(false, "Exhausted: segment pool: 0 of 2 ranges free; segment kubelet: 0 of 1 ranges free")
	claimed.Remove(t)
	awaitFree(t, n, "segment=kubelet,state=free", 1)
	want(false, "Exhausted: segment pool: 0 of 2 ranges free; segment kubelet: 1 of 1 ranges free")
	last.Remove(t)
	awaitFree(t, n, "segment=pool,state=free", 1)
	want(true, "RangesFree: segment pool: 1 of 2 ranges free; segment kubelet: 1 of 1 ranges free")
}

// awaitFree waits for the daemon's look at a range that was released: every 10 s.
func awaitFree(t *testing.T, n *nodetest.Node, series string, want float64) {
	t.Helper()
	eventually(t, series+" has the value that it should", func() bool {
		return sampleOf(t, families(t, n), "userns_shim_idpool_ranges", series) == want
	})
}

// TestForecastTellsWhenThePoolIsEmpty: in pool status and as a metric, on a node that gives away one range after the other;
// not on one that does nothing.
func TestForecastTellsWhenThePoolIsEmpty(t *testing.T) {
	t.Parallel()
	const window = 24 * time.Second // a sample each 200 ms, a forecast after 2 s
	n := ownNode(t, labnode.Options{PoolRanges: 100, KubeletRanges: 28, Daemon: labnode.DaemonOptions{ForecastWindow: window.String()}})
	predicted := func() (status admin.PoolStatus, metric float64) {
		t.Helper()
		if err := json.Unmarshal([]byte(wantPool(t, n, "status", "-o", "json")), &status); err != nil {
			t.Fatal(err)
		}
		return status, sampleOf(t, families(t, n), "userns_shim_idpool_predicted_empty_seconds", "segment=pool")
	}
	if status, metric := predicted(); status.Segments[0].PredictedEmptySeconds != nil || !math.IsInf(metric, 1) {
		t.Errorf("an idle pool is predicted to be empty: %+v, %v", status.Segments[0], metric)
	}
	began := time.Now()
	ran := 0
	for ; ran < 24 || time.Since(began) < 3*time.Second; ran++ {
		n.RunPod(t)
	}
	took := time.Since(began)
	status, metric := predicted()
	in := status.Segments[0].PredictedEmptySeconds
	// So many pods took so long, and the rest of the ranges is left.
	want := took.Seconds() * float64(100-ran) / float64(ran)
	if in == nil || float64(*in) < want/2 || float64(*in) > want*2 || math.Abs(metric-float64(*in)) > 5 {
		t.Errorf("the pool is predicted to be empty in %v s, by the metric in %v, want about %v", in, metric, want)
	}
	if got := fields(wantPool(t, n, "status")); !strings.Contains(got, "IN USE EMPTY IN") || !strings.Contains(got, "about ") {
		t.Errorf("status prints\n%s", got)
	}
	if got := wantPool(t, n, "status", "-o", "yaml"); !strings.Contains(got, "predictedEmptySeconds: ") {
		t.Errorf("status prints\n%s", got)
	}
	if kubelet := status.Segments[1]; kubelet.Name != "kubelet" || kubelet.PredictedEmptySeconds != nil {
		t.Errorf("kubelet's segment, of which nothing was taken, is predicted to be empty: %+v", kubelet)
	}
	// Nothing more is taken: once that has gone on for half of the window, nothing is predicted any more.
	eventually(t, "nothing is predicted", func() bool {
		_, metric := predicted()
		return math.IsInf(metric, 1)
	})
}
