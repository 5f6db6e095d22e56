package e2ekubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// otherKubelet runs a kubelet with other options until the test ends. Pods of before have to be gone: kubelet does not start on ranges that
// do not fit its options.
func (n *node) otherKubelet(t *testing.T, opts labnode.KubeletOptions) {
	t.Helper()
	n.awaitNoPods(t)
	n.restartKubelet(t, opts)
	t.Cleanup(func() {
		n.awaitNoPods(t)
		if err := n.kubelet.Restart(context.WithoutCancel(t.Context()), n.defaults()); err != nil {
			t.Error(err)
		}
	})
}

// awaitNoPods waits until kubelet has removed what it had written down of its pods.
func (n *node) awaitNoPods(t *testing.T) {
	t.Helper()
	eventually(t, "kubelet keeps nothing of pods", func() error {
		entries, err := os.ReadDir(filepath.Join(n.kubelet.Root, "pods"))
		if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
			return nil
		}
		return fmt.Errorf("%d pods are left, %w", len(entries), err)
	})
}

// TestKubeletWithoutAUser lets kubelet draw from all ids but the host's own, as it does on a node without a user called
// kubelet: the ranges lie in no segment of the pool, and are granted as they are.
func TestKubeletWithoutAUser(t *testing.T) {
	n := sharedNode(t)
	n.otherKubelet(t, labnode.KubeletOptions{})
	pods := []*pod{n.run(t, false, sleeper), n.run(t, false, sleeper)}
	outside := 0
	for _, p := range pods {
		if got := p.wantRange(t); !n.IDs.Contains(got.HostID) {
			outside++
		}
	}
	if outside == 0 {
		t.Error("both ranges are the node's own: did kubelet find a user?")
	}
}

// TestKubeletWithLongerRanges has kubelet give each pod two units.
func TestKubeletWithLongerRanges(t *testing.T) {
	const length = 2 * labnode.IDsPerRange
	n := sharedNode(t)
	opts := n.defaults()
	opts.Config["userNamespaces"] = map[string]any{"idsPerPod": length}
	opts.Config["maxPods"] = kubeletRanges / 2 // of two units each
	n.otherKubelet(t, opts)
	p := n.run(t, false, sleeper)
	written, got := p.rangeOf(t), p.wantRange(t)
	if written.Length != length || !n.Kubelet().Contains(written.HostID+length-1) || got.Length != length {
		t.Errorf("kubelet chose %+v, and the pod has %+v", written, got)
	}
	if owner := p.sh(t, "touch /x && chown 131071:100000 /x && stat -c %u:%g /x"); owner != "131071:100000" {
		t.Errorf("inside, the file belongs to %s", owner)
	}
	wantOwner(t, p.container(t, "main").HostPath(t, "/x"), got.HostID+131071, got.HostID+100000)
}
