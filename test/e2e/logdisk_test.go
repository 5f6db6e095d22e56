package e2e

import (
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

// beside is a container of another pod, whose log must not be disturbed.
type beside struct{ c *nodetest.Container }

func runBeside(t *testing.T, n *nodetest.Node) beside {
	t.Helper()
	return beside{n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Shell("i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"))}
}

// wantUndisturbed holds that the log goes on, without a gap in its numbers or longer than a second in time.
func (b beside) wantUndisturbed(t *testing.T) {
	t.Helper()
	now := time.Now()
	log := b.c.AwaitLog(t, "gone on", func(l nodetest.ContainerLog) bool { return len(l) > 0 && l[len(l)-1].Time.After(now) })
	for i, line := range log {
		if number(line) != i {
			t.Fatalf("line %d beside is %q", i, line.Text)
		}
		if i > 0 && line.Time.Sub(log[i-1].Time) > time.Second {
			t.Errorf("beside, line %d came %s after the one before", i, line.Time.Sub(log[i-1].Time))
		}
	}
}

// onDisk runs a pod whose log directory has a filesystem of its own, and a container in it.
func onDisk(t *testing.T, n *nodetest.Node, mount func(dir string), opts ...nodetest.ContainerOption) *nodetest.Container {
	t.Helper()
	dir := volume(t, n)
	mount(dir)
	pod := n.RunPod(t, func(req *runtimeapi.RunPodSandboxRequest) { req.Config.LogDirectory = dir + "/pod" })
	return pod.Run(t, n.Image(t, labimage.Demo), opts...)
}

// logOnDisk reads a log that only the node sees. A last record that is being written is left out.
func logOnDisk(t *testing.T, n *nodetest.Node, path string) []string {
	t.Helper()
	var content []byte
	inNode(t, n, func() (err error) {
		content, err = os.ReadFile(path)
		return err
	})
	var text []string
	for _, line := range lines(string(content[:strings.LastIndexByte(string(content), '\n')+1])) {
		if line == "" {
			continue
		}
		if !logRecord.MatchString(line) {
			t.Fatalf("%s: %q is no record", path, line)
		}
		text = append(text, strings.SplitN(line, " ", 4)[3])
	}
	return text
}

// wantRun holds that numbers follow each other; the first may be any.
func wantRun(t *testing.T, what string, text []string) {
	t.Helper()
	for i := 1; i < len(text); i++ {
		last, err := strconv.Atoi(text[i-1])
		if err != nil || text[i] != strconv.Itoa(last+1) {
			t.Fatalf("%s: %q comes after %q (%v)", what, text[i], text[i-1], err)
		}
	}
}

// TestLogOnFullDisk fills the disk of a log. The container is held back, loses nothing when room comes soon,
// lives on with a log that drops lines when it does not, and is logged again when it comes at last.
func TestLogOnFullDisk(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	work := volume(t, n)
	other := runBeside(t, n)
	c := onDisk(t, n, func(dir string) { mountOn(t, n, dir, "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs") },
		nodetest.Mount(work, "/vol"),
		nodetest.Shell("i=0; while [ ! -e /vol/stop ]; do seq $i $((i+999)); i=$((i+1000)); echo $i > /vol/at; sleep 0.01; done"))
	at := func() int {
		text, _ := os.ReadFile(filepath.Join(work, "at"))
		i, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return i
	}
	last := awaitSteady(t, "the container is held back by its full disk", at)

	// Room within ten seconds: rotation, and garbage collection of the old file. Both files are one run.
	rotated := c.LogPath() + ".0"
	inNode(t, n, func() error { return os.Rename(c.LogPath(), rotated) })
	reopen(t, n, c)
	first := logOnDisk(t, n, rotated)
	inNode(t, n, func() error { return os.Remove(rotated) })
	eventually(t, "the container goes on", func() bool { return at() > last })
	var second []string
	eventually(t, "the new file has lines", func() bool { second = logOnDisk(t, n, c.LogPath()); return len(second) > 0 })
	wantRun(t, "log over the rotation", append(first, second[0]))

	// No room for longer: the container goes on and its lines are dropped.
	last = awaitSteady(t, "the disk is full again", at)
	eventually(t, "the daemon tells that it drops records, and the container goes on without its log", func() bool {
		daemon, err := os.ReadFile(n.Daemon.Log)
		return err == nil && strings.Contains(string(daemon), "drops records") && at() > last+10_000
	})
	if state := c.Status(t).State; state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container with a full disk is %s", state)
	}

	// Room at last.
	inNode(t, n, func() error { return os.Rename(c.LogPath(), rotated) })
	reopen(t, n, c)
	inNode(t, n, func() error { return os.Remove(rotated) })
	resumed := at()
	eventually(t, "lines are logged again", func() bool {
		text := logOnDisk(t, n, c.LogPath())
		if len(text) == 0 {
			return false
		}
		newest, err := strconv.Atoi(text[len(text)-1])
		return err == nil && newest > resumed
	})
	other.wantUndisturbed(t)
	write(t, filepath.Join(work, "stop"), "", 0, 0)
	if code := c.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestLogOnStuckDisk freezes the filesystem of a log under a container that writes as fast as it can: a disk that
// takes nothing for a while. The container waits in its own pipe, the daemon does not collect its output, other
// containers do not notice, and no line is lost.
func TestLogOnStuckDisk(t *testing.T) {
	t.Parallel()
	const numbers = 3_000_000 // 144 MB of log, 24 MB of output
	n := ownNode(t, labnode.Options{})
	work := volume(t, n)
	other := runBeside(t, n)
	var disk string
	c := onDisk(t, n, func(dir string) { disk = dir; mountFilesystem(t, n, dir, "512M") }, nodetest.Mount(work, "/vol"),
		nodetest.Shell(fmt.Sprintf("touch /vol/up; while [ ! -e /vol/go ]; do sleep 0.01; done; seq 0 %d; touch /vol/written; sleep 1", numbers-1)))
	eventually(t, "the container runs", func() bool { _, err := os.Stat(work + "/up"); return err == nil })
	rss := metric(t, n, "process_resident_memory_bytes")
	onNode(t, n, "fsfreeze", "-f", disk)
	thawed := false
	thaw := func() {
		if !thawed {
			onNode(t, n, "fsfreeze", "-u", disk)
			thawed = true
		}
	}
	t.Cleanup(thaw)
	write(t, work+"/go", "", 0, 0)
	time.Sleep(3 * time.Second)
	if _, err := os.Stat(work + "/written"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the container has written all although its disk is stuck (%v)", err)
	}
	grown := metric(t, n, "process_resident_memory_bytes") - rss
	if grown > 16<<20 {
		t.Errorf("the daemon grew by %.0f bytes while the disk was stuck", grown)
	}
	c.Exec(t, "true")
	other.wantUndisturbed(t)
	thaw()
	if code := c.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	peak := metric(t, n, "process_resident_memory_bytes") - rss
	if peak > 32<<20 {
		t.Errorf("the daemon has grown by %.0f bytes in all", peak)
	}
	text := logOnDisk(t, n, c.LogPath())
	if len(text) != numbers || text[0] != "0" {
		t.Fatalf("the log has %d lines, want %d", len(text), numbers)
	}
	wantRun(t, "log", text)
	t.Logf("the daemon grew by %.0f KiB while the disk was stuck, and by %.0f KiB in all", grown/1024, peak/1024)
}
