package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// counting writes numbers to both outputs as fast as it can, until /vol/stop is there.
const counting = `count() { i=0; while [ ! -e /vol/stop ]; do seq $i $((i+4999)); i=$((i+5000)); done; }; count >&2 & count; wait`

// TestRotationUnderLoadLosesNothing renames the log and has it reopened, as kubelet does, under a container that
// writes to both streams at full speed: each number is there once, in order, and no record is torn.
func TestRotationUnderLoadLosesNothing(t *testing.T) {
	const rotations = 60
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		dir := volume(t, n)
		c := n.RunPod(t, opts...).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"), nodetest.Shell(counting))
		before := takeCensus(t, n)
		var files []string
		for i := range rotations {
			// However slow the machine, the container writes when the log is taken away.
			eventually(t, "the container writes", func() bool {
				info, err := os.Stat(c.LogPath())
				return err == nil && info.Size() > 0
			})
			files = append(files, rotate(t, n, c, i))
		}
		write(t, dir+"/stop", "", 0, 0)
		if code := c.Wait(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		// Read only now: while one is read, the next would grow.
		sums := numbered{}
		for _, file := range append(files, c.LogPath()) {
			sums.add(t, file)
		}
		for _, stream := range []string{"stdout", "stderr"} {
			if sums[stream] == 0 || sums[stream]%5000 != 0 {
				t.Errorf("%s ends after %d numbers, want a multiple of 5000", stream, sums[stream])
			}
		}
		t.Logf("%d numbers on stdout and %d on stderr in %d files", sums["stdout"], sums["stderr"], rotations+1)
		wantCensus(t, n, before)
	})
}

// rotate renames the log and has it reopened.
func rotate(t *testing.T, n *nodetest.Node, c *nodetest.Container, i int) (old string) {
	t.Helper()
	old = fmt.Sprintf("%s.%d", c.LogPath(), i)
	if err := os.Rename(c.LogPath(), old); err != nil {
		t.Fatal(err)
	}
	reopen(t, n, c)
	return old
}

func tryReopen(ctx context.Context, n *nodetest.Node, id string) error {
	_, err := n.Runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
	return err
}

func reopen(t *testing.T, n *nodetest.Node, c *nodetest.Container) {
	t.Helper()
	if err := tryReopen(t.Context(), n, c.ID); err != nil {
		t.Fatalf("ReopenContainerLog: %v", err)
	}
}

// numbered is the next number of each stream, over all files of a log.
type numbered map[string]int

// add reads the next file, whose numbers must go on where the last one's ended, and removes it.
func (n numbered) add(t *testing.T, path string) {
	t.Helper()
	for i, line := range nodetest.ReadLog(t, path) {
		if line.Partial || line.Text != fmt.Sprint(n[line.Stream]) {
			t.Fatalf("%s: record %d of %s is %q, partial %t; want %d", path, i, line.Stream, line.Text, line.Partial, n[line.Stream])
		}
		n[line.Stream]++
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// TestRotationOfAnIdleLog rotates the log of a container that waits in the middle of a line.
func TestRotationOfAnIdleLog(t *testing.T) {
	n := sharedNode(t)
	dir := volume(t, n)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"),
		nodetest.Shell("echo whole; printf begin; while [ ! -e /vol/go ]; do sleep 0.05; done; echo -end"))
	c.AwaitLog(t, "the whole line", func(l nodetest.ContainerLog) bool { return l.Stdout() != "" })
	var all strings.Builder
	for i := range 3 {
		all.WriteString(nodetest.ReadLog(t, rotate(t, n, c, i)).Stdout())
	}
	write(t, dir+"/go", "", 0, 0)
	c.Wait(t)
	all.WriteString(c.Log(t).Stdout())
	if got := all.String(); got != "whole\nbegin-end\n" {
		t.Errorf("all files together have %q", got)
	}
}
