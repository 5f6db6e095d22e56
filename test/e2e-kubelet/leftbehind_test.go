package e2ekubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/leaks"
)

// leftBehind waits until kubelet has cleared away every pod that is gone, which it does within a minute, and lists what is left on
// the node nevertheless.
func (n *node) leftBehind(ctx context.Context) ([]string, error) {
	deadline := time.Now().Add(patience)
	for {
		found, err := n.traces(ctx)
		if err != nil || len(found) == 0 || time.Now().After(deadline) {
			return found, err
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// traces are those of pods. kubelet's own cgroups, of the three classes of service, stay.
func (n *node) traces(ctx context.Context) ([]string, error) {
	things, err := n.Leaks(ctx, 0)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, thing := range things {
		if !kubeletsOwn(thing) {
			found = append(found, thing.String())
		}
	}
	for _, dir := range []string{filepath.Join(n.kubelet.Root, "pods"), n.kubelet.Logs, n.kubelet.Manifests} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			found = append(found, "file of kubelet "+filepath.Join(dir, entry.Name()))
		}
	}
	return found, nil
}

// allocated asks userns-shim for the ranges that pods have. Those that only rest are nobody's.
func (n *node) allocated(ctx context.Context) (held []string, err error) {
	all, err := admin.NewClient(admin.SocketPath(n.Daemon.State)).PoolRanges(ctx)
	for _, r := range all {
		if r.State == "allocated" {
			held = append(held, fmt.Sprintf("%d:%d of pod %s", r.Start, r.Length, r.Pod))
		}
	}
	return held, err
}

func kubeletsOwn(thing leaks.Thing) bool {
	if thing.Kind != "cgroup" {
		return false
	}
	name := filepath.Base(thing.Name)
	return !strings.HasPrefix(name, "pod") && !id.MatchString(name)
}
