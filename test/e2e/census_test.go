package e2e

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// census counts what a daemon holds for its clients.
type census struct{ descriptors, goroutines int }

func takeCensus(t *testing.T, n *nodetest.Node) census {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.Daemon.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return census{descriptors: len(entries), goroutines: int(metric(t, n, "go_goroutines"))}
}

// censusAfterAPod is what the daemon holds once it has run a pod and a command: what it makes with the first one and keeps, such
// as connections, is not of those that follow.
func censusAfterAPod(t *testing.T, n *nodetest.Node) census {
	t.Helper()
	pod := n.RunPod(t)
	pod.Run(t, n.Image(t, labimage.Demo)).Exec(t, "true")
	pod.Remove(t)
	return takeCensus(t, n)
}

// metric is the value of one of the daemon's metrics, by its name and labels.
func metric(t *testing.T, n *nodetest.Node, name string) float64 {
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
	for _, line := range lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			number, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	t.Fatalf("the daemon has no metric %s", name)
	return 0
}

// wantCensus waits until the daemon holds no more than before. The margin is for what comes and goes by
// itself: the request for the metrics, a timer's goroutine.
func wantCensus(t *testing.T, n *nodetest.Node, before census) {
	t.Helper()
	const margin = 4
	var now census
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		now = takeCensus(t, n)
		if now.descriptors <= before.descriptors+margin && now.goroutines <= before.goroutines+margin {
			return
		}
	}
	t.Errorf("the daemon holds %d descriptors and %d goroutines, and held %d and %d before", now.descriptors, now.goroutines, before.descriptors, before.goroutines)
}
