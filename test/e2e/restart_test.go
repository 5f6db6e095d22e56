package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// counter writes a number that grows, ten times a second, and exits with code 9 once /vol/stop is there.
const counter = `i=0; while [ ! -e /vol/stop ]; do echo $i; i=$((i+1)); sleep 0.1; done; exit 9`

// TestKillingUsernsShimDisturbsNoPod kills userns-shim while pods run and starts it again.
func TestKillingUsernsShimDisturbsNoPod(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	image := n.Image(t, labimage.Demo)
	dir := volume(t, n)
	pod, claimed := n.RunPod(t), n.RunPod(t, nodetest.Mapping(n.Kubelet().Start))
	writer := pod.Run(t, image, nodetest.Mount(dir, "/vol"), nodetest.Shell(counter))
	ends := pod.Run(t, image, nodetest.Mount(dir, "/vol"), nodetest.Shell("while [ ! -e /vol/end ]; do sleep 0.05; done; exit 7"))
	idle := claimed.Run(t, image)
	writer.AwaitLog(t, "ten lines", func(l nodetest.ContainerLog) bool { return len(l) >= 10 })
	pids := []int{writer.PID(t), idle.PID(t)}
	ranges := []uint32{pod.Range(t), claimed.Range(t)}

	if err := n.Daemon.Kill9(); err != nil {
		t.Fatal(err)
	}
	// One container ends while nobody watches.
	write(t, filepath.Join(dir, "end"), "", 0, 0)
	time.Sleep(time.Second)
	before := lastNumber(t, writer)
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}

	for i, c := range []*nodetest.Container{writer, idle} {
		if status := c.Status(t); status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("container %d is %s after the restart, want running", i, status.State)
		}
		if got := c.PID(t); got != pids[i] {
			t.Errorf("container %d has pid %d after the restart, had %d", i, got, pids[i])
		}
	}
	for i, p := range []*nodetest.Pod{pod, claimed} {
		if got := p.Range(t); got != ranges[i] {
			t.Errorf("pod %d has the range %d after the restart, had %d", i, got, ranges[i])
		}
	}
	if got := ends.Wait(t); got != 7 {
		t.Errorf("exit code of the container that ended meanwhile is %d, want 7", got)
	}
	writer.AwaitLog(t, fmt.Sprintf("gone on beyond %d", before), func(l nodetest.ContainerLog) bool { return len(l) > 0 && number(l[len(l)-1]) > before+10 })
	if got := idle.Exec(t, "cat", "/proc/self/uid_map"); fields(got) != fmt.Sprintf("0 %d 65536", ranges[1]) {
		t.Errorf("uid_map in exec after the restart is %q", got)
	}
	if fresh := n.RunPod(t).Range(t); fresh == ranges[0] || fresh == ranges[1] {
		t.Errorf("a new pod got the range %d of a living one", fresh)
	}
	pod.Run(t, image).Exec(t, "true")

	write(t, filepath.Join(dir, "stop"), "", 0, 0)
	if got := writer.Wait(t); got != 9 {
		t.Errorf("exit code of the writer is %d, want 9", got)
	}
	wantGrowing(t, writer.Log(t))
}

// TestRestartOfUsernsShimLosesNoLine ends it the ordinary way.
func TestRestartOfUsernsShimLosesNoLine(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	dir := volume(t, n)
	writer := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"), nodetest.Shell(counter))
	writer.AwaitLog(t, "ten lines", func(l nodetest.ContainerLog) bool { return len(l) >= 10 })
	for range 3 {
		if err := n.Daemon.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := n.Daemon.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	write(t, filepath.Join(dir, "stop"), "", 0, 0)
	if got := writer.Wait(t); got != 9 {
		t.Errorf("exit code is %d, want 9", got)
	}
	for i, line := range writer.Log(t) {
		if number(line) != i {
			t.Fatalf("line %d of the log is %q", i, line.Text)
		}
	}
}

func TestContainerdIsRestartedWhilePodsRun(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	image := n.Image(t, labimage.Demo)
	dir := volume(t, n)
	pod := n.RunPod(t)
	writer := pod.Run(t, image, nodetest.Mount(dir, "/vol"), nodetest.Shell(counter))
	idle := pod.Run(t, image)
	if err := n.Containerd.Kill9(); err != nil {
		t.Fatal(err)
	}
	before := lastNumber(t, writer)
	writer.AwaitLog(t, "gone on without containerd", func(l nodetest.ContainerLog) bool { return len(l) > 0 && number(l[len(l)-1]) > before+5 })
	if err := n.Containerd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, n)
	idle.Exec(t, "true")
	pod.Run(t, image).Exec(t, "true")
	write(t, filepath.Join(dir, "stop"), "", 0, 0)
	if got := writer.Wait(t); got != 9 {
		t.Errorf("exit code is %d, want 9", got)
	}
	wantGrowing(t, writer.Log(t))
}

// restart stops the daemon if it runs, and starts it.
func restart(t *testing.T, n *nodetest.Node) {
	t.Helper()
	if err := errors.Join(n.Daemon.Stop(t.Context()), n.Daemon.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	eventually(t, "CRI is served", func() bool {
		_, err := n.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
		return err == nil
	})
}

// crash kills userns-shim, lets something happen meanwhile, and starts it again.
func crash(t *testing.T, n *nodetest.Node, meanwhile ...func()) {
	t.Helper()
	if err := n.Daemon.Kill9(); err != nil {
		t.Fatal(err)
	}
	for _, f := range meanwhile {
		f()
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func number(line nodetest.LogLine) int {
	n, err := strconv.Atoi(line.Text)
	if err != nil {
		return -1
	}
	return n
}

func lastNumber(t *testing.T, c *nodetest.Container) int {
	t.Helper()
	content, err := os.ReadFile(c.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	// The last line may be in the middle of being written.
	text := lines(strings.TrimSpace(string(content[:bytes.LastIndexByte(content, '\n')+1])))
	if len(text) == 0 {
		return -1
	}
	words := strings.Fields(text[len(text)-1])
	last, err := strconv.Atoi(words[len(words)-1])
	if err != nil {
		t.Fatalf("last line of the log is %q", text[len(text)-1])
	}
	return last
}

// wantGrowing holds that no line is there twice or out of order. What userns-shim had read and not yet
// written when it was killed may be missing.
func wantGrowing(t *testing.T, log nodetest.ContainerLog) {
	t.Helper()
	last, missing := -1, 0
	for _, line := range log {
		got := number(line)
		if got <= last {
			t.Fatalf("line %q comes after %d", line.Text, last)
		}
		missing += got - last - 1
		last = got
	}
	if missing > 2 {
		t.Errorf("%d lines of %d are missing", missing, last+1)
	}
}
