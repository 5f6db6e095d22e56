package e2ekubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// node is a lab node with a kubelet.
type node struct {
	*nodetest.Node
	kubelet *labnode.Kubelet
	client  *kubeletClient
	image   string
}

// The node's ranges. kubelet draws its own at random, and has more than the 110 that its pods need at a time: as on a real node few of them
// are those of pods that have ended and were not yet removed. A pod that meets such a one gets a range of the pool.
const (
	kubeletRanges = 320
	poolRanges    = 64
)

// patience is how long kubelet may take for one thing; it looks at everything again each minute, and a loaded machine of two
// cores is slow.
const patience = 90 * time.Second

// otherHandler is a runtime handler beside the default one.
const otherHandler = "other"

var shared struct {
	mu   sync.Mutex
	node *node
}

func TestMain(m *testing.M) {
	os.Exit(nodetest.Main(m, finishShared))
}

func finishShared(ctx context.Context) error {
	if shared.node == nil {
		return nil
	}
	return shared.node.finish(ctx)
}

// sharedNode returns the node that all tests share, and shows its logs if the test fails.
func sharedNode(t *testing.T) *node {
	t.Helper()
	tools := nodetest.Tools(t)
	testkit.RequireBin(t, "kubelet")
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.node == nil {
		n, err := startNode(t, tools)
		if err != nil {
			t.Fatal(err)
		}
		shared.node = n
	}
	return shared.node
}

// parallelNode is sharedNode for a test that runs beside others.
func parallelNode(t *testing.T) *node {
	t.Helper()
	n := sharedNode(t)
	t.Parallel()
	return n
}

func startNode(t *testing.T, tools labnode.Tools) (*node, error) {
	t.Helper()
	began := time.Now()
	lab, err := nodetest.New(t.Context(), labnode.Options{
		Tools: tools, KubeletRanges: kubeletRanges, PoolRanges: poolRanges,
		Daemon: labnode.DaemonOptions{
			Handlers: "  " + otherHandler + ": {runtime: io.containerd.runc.v2, binaryName: runc}\n",
			Registry: fmt.Sprintf("pinnedImages: [%q]", pinnedImages),
		},
	})
	if err != nil {
		return nil, err
	}
	n := &node{Node: lab, image: lab.Image(t, labimage.Demo)}
	lab.Ranges = n.allocated
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	if n.kubelet, err = labnode.StartKubelet(ctx, lab.Node, n.defaults()); err != nil {
		return nil, fmt.Errorf("%w; closing the node: %w", err, lab.Close(ctx))
	}
	n.client = &kubeletClient{url: n.kubelet.URL(), http: n.kubelet.Client()}
	t.Logf("node %s with kubelet is up after %s", lab.Name, time.Since(began).Round(time.Millisecond))
	return n, nil
}

// defaults is a kubelet that draws its ranges from the subordinate ids of its user, as on a node that was installed by the book. It looks at
// logs more often than by default, and starts another file earlier.
func (n *node) defaults() labnode.KubeletOptions {
	return labnode.KubeletOptions{IDs: n.Kubelet(), Config: map[string]any{
		"containerLogMonitorInterval": "3s", "containerLogMaxSize": "200Ki", "containerLogMaxFiles": 20,
	}}
}

// finish ends the node and tells what all pods together have left behind.
func (n *node) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	found, err := n.leftBehind(ctx)
	for _, thing := range found {
		fmt.Fprintln(os.Stderr, "left behind:", thing)
	}
	if len(found) > 0 {
		err = fmt.Errorf("%d things are left behind; logs:\n%s\n%s", len(found), labnode.LogTail(n.Daemon.Log), labnode.LogTail(n.kubelet.Log))
	}
	if dir := os.Getenv(keepLogsEnv); dir != "" {
		keepLogs(dir, n)
	}
	if closed := n.Close(ctx); err == nil {
		err = closed
	}
	return err
}

// keepLogsEnv names a directory for the daemons' logs, which go with the node otherwise.
const keepLogsEnv = "USERNS_SHIM_KEEP_LOGS"

// keepLogs copies the daemons' logs, for a look at what happened in a run.
func keepLogs(dir string, n *node) {
	for _, path := range []string{n.kubelet.Log, n.Daemon.Log, n.Containerd.Log} {
		if text, err := os.ReadFile(path); err == nil {
			_ = os.WriteFile(filepath.Join(dir, filepath.Base(path)), text, 0o644)
		}
	}
}
