package labnode_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestNodesAreApartAndCloseRemovesThem starts two nodes side by side, without userns-shim. One has more ids than nodes have by default.
func TestNodesAreApartAndCloseRemovesThem(t *testing.T) {
	const wide = 2*labnode.RangesPerNode - 60
	one, two := startNode(t), startNodeWith(t, labnode.Options{KubeletRanges: wide, PoolRanges: 60})
	if got := two.Kubelet().Length; got != wide*labnode.IDsPerRange || two.IDs.Length != 2*one.IDs.Length {
		t.Errorf("the wide node has %d ids of %d, want %d ranges of twice as many as %d", got, two.IDs.Length, wide, one.IDs.Length)
	}
	if one.IDs.Contains(two.IDs.Start) || two.IDs.Contains(one.IDs.Start) {
		t.Errorf("two nodes share host ids: %+v and %+v", one.IDs, two.IDs)
	}
	for _, n := range []*labnode.Node{one, two} {
		if k, p := n.Kubelet(), n.Pool(); k.Contains(p.Start) || !n.IDs.Contains(k.Start) || !n.IDs.Contains(p.Start+p.Length-1) {
			t.Errorf("segments %+v and %+v are not two parts of %+v", k, p, n.IDs)
		}
		if !n.Containerd.Running() || n.Daemon.Running() {
			t.Errorf("containerd runs: %t, want true; userns-shim runs: %t, want false", n.Containerd.Running(), n.Daemon.Running())
		}
		makeCgroups(t, n.Name)
		closeNode(t, n)
		assertGone(t, n)
	}
}

// TestSweepRemovesWhatAKilledOwnerLeft needs a node that nobody holds the lock of; closing the lock is what
// the kernel does for a killed process. A node that lives is not touched.
func TestSweepRemovesWhatAKilledOwnerLeft(t *testing.T) {
	nodetest.Tools(t)
	living := startNode(t)
	dir, err := os.MkdirTemp("/tmp", "usl-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(dir)
	cgroup := makeCgroups(t, name)
	orphan := exec.Command("sh", "-c", "echo $$ > "+cgroup+"/cgroup.procs && exec sleep 1004")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- orphan.Wait() }()
	awaitBelonging(t, name)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := labnode.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := <-ended; !errors.As(err, &exit) {
		t.Errorf("the process that was left ends with %v, want it killed", err)
	}
	for _, path := range []string{dir, cgroup} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", path, err)
		}
	}
	if _, err := os.Stat(living.Dir); err != nil || !living.Containerd.Running() {
		t.Errorf("a living node was swept: %v", err)
	}
}

func startNode(t *testing.T) *labnode.Node {
	t.Helper()
	return startNodeWith(t, labnode.Options{})
}

func startNodeWith(t *testing.T, opts labnode.Options) *labnode.Node {
	t.Helper()
	opts.Tools, opts.NoDaemon = nodetest.Tools(t), true
	node, err := labnode.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(t, node) })
	return node
}

// closeNode may be called again.
func closeNode(t *testing.T, n *labnode.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Error(err)
	}
}

// makeCgroups makes a pod's cgroup in every hierarchy and returns one that takes processes at once.
func makeCgroups(t *testing.T, name string) string {
	t.Helper()
	roots, err := leaks.CgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	usable := ""
	for _, root := range roots {
		path := filepath.Join(root, name, "pod")
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(root, "cpuset") {
			usable = path
		}
	}
	return usable
}

func awaitBelonging(t *testing.T, mark string) {
	t.Helper()
	for range 500 {
		procs, err := leaks.Processes()
		if err != nil {
			t.Fatal(err)
		}
		if len(leaks.Belonging(procs, mark)) > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no process belongs to %s", mark)
}

func assertGone(t *testing.T, n *labnode.Node) {
	t.Helper()
	assertNoProcess(t, n.Name)
	paths := []string{n.Dir}
	roots, err := leaks.CgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range roots {
		paths = append(paths, filepath.Join(root, n.Name))
	}
	for _, path := range paths {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there after Close (%v)", path, err)
		}
	}
}
