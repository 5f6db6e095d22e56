package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// logRecord is a line of a container's log: time in RFC 3339 with nanoseconds, stream, tag, text.
var logRecord = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d) (stdout|stderr) [PF] .*$`)

// TestLogRecords holds the format, the order of both streams, growing times, and the log file's owner and mode.
func TestLogRecords(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		// It waits for each record before it writes the next: the order of what is in two pipes at the same time is nobody's.
		c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Mount(pod.Request.Config.LogDirectory, "/logs"), func(c *runtimeapi.ContainerConfig) {
			nodetest.Shell(`logged() { until grep -q "$1 F $2\$" /logs/` + c.LogPath + `; do sleep 0.01; done; }
for i in 1 2 3 4 5; do echo "out $i"; logged stdout "out $i"; echo "err $i" >&2; logged stderr "err $i"; done
echo; printf '  blanks  \n'; printf 'no end'`)(c)
		})
		if code := c.Wait(t); code != 0 {
			t.Fatalf("exit code %d", code)
		}
		content, err := os.ReadFile(c.LogPath())
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines(strings.TrimSuffix(string(content), "\n")) {
			if !logRecord.MatchString(line) {
				t.Errorf("%q is no record", line)
			}
		}
		log := c.Log(t)
		var order []string
		for i, line := range log {
			order = append(order, line.Text)
			if i > 0 && line.Time.Before(log[i-1].Time) {
				t.Errorf("record %d is older than the one before it", i)
			}
		}
		want := []string{"out 1", "err 1", "out 2", "err 2", "out 3", "err 3", "out 4", "err 4", "out 5", "err 5", "", "  blanks  ", "no end"}
		if strings.Join(order, "|") != strings.Join(want, "|") {
			t.Errorf("the log has %q, want %q", order, want)
		}
		if last := log[len(log)-1]; !last.Partial {
			t.Error("a last line without an end is tagged as a full one")
		}
		info, err := os.Stat(c.LogPath())
		if err != nil {
			t.Fatal(err)
		}
		if got := ownerOf(t, c.LogPath()); info.Mode() != 0o640 || got != (owner{}) {
			t.Errorf("the log file has mode %s and owner %v, want 0640 of root", info.Mode(), got)
		}
	})
}

// TestLogOfTerminal holds that a terminal's output is stdout alone, without carriage returns.
func TestLogOfTerminal(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), withTTY, nodetest.Shell("echo out; echo err >&2; echo more"))
	c.Wait(t)
	if log := c.Log(t); log.Stdout() != "out\nerr\nmore\n" || log.Stderr() != "" {
		t.Errorf("the log has %q on stdout and %q on stderr", log.Stdout(), log.Stderr())
	}
}

// TestLogLineSizeIsConfigured cuts lines at a few bytes, wherever in a character that is.
func TestLogLineSizeIsConfigured(t *testing.T) {
	t.Parallel()
	const size = 10
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Extra: fmt.Sprintf("maxContainerLogLineSize: %d", size)}})
	text := []string{strings.Repeat("äöü€", 20), strings.Repeat("x", size), strings.Repeat("y", size+1), "short"}
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Command("printf", strings.Join(text, `\n`)+`\n`))
	c.Wait(t)
	log := c.Log(t)
	if got := log.Stdout(); got != strings.Join(text, "\n")+"\n" {
		t.Errorf("joined, the log's lines are %q", got)
	}
	for _, line := range log {
		if len(line.Text) > size || line.Partial && len(line.Text) != size {
			t.Errorf("record of %d bytes, partial %t, with lines cut at %d", len(line.Text), line.Partial, size)
		}
	}
	if want := (20*9+size-1)/size + 1 + 2 + 1; len(log) != want {
		t.Errorf("the log has %d records, want %d", len(log), want)
	}
}

// TestLogIsCompleteWhenTheExitIsVisible reads the logs of containers that end at once in the moment in which CRI
// first says that they have ended.
func TestLogIsCompleteWhenTheExitIsVisible(t *testing.T) {
	const count, last = 20, 30000
	n := sharedNode(t)
	pod := n.RunPod(t)
	for i := range count {
		c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Shell(fmt.Sprintf("seq %d >&2 & seq %d; wait", last, last)))
		for c.Status(t).State != runtimeapi.ContainerState_CONTAINER_EXITED {
			time.Sleep(time.Millisecond)
		}
		log := c.Log(t)
		if out, errs := strings.Count(log.Stdout(), "\n"), strings.Count(log.Stderr(), "\n"); out != last || errs != last {
			t.Errorf("container %d: %d lines of stdout and %d of stderr, want %d", i, out, errs, last)
		}
		c.Remove(t)
	}
}

func TestContainerWithoutLog(t *testing.T) {
	n := sharedNode(t)
	for _, noPath := range []bool{true, false} {
		t.Run(fmt.Sprintf("no path %t", noPath), func(t *testing.T) {
			pod := n.RunPod(t, func(req *runtimeapi.RunPodSandboxRequest) {
				if !noPath {
					req.Config.LogDirectory = ""
				}
			})
			c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Shell("seq 100000; exit 3"),
				func(c *runtimeapi.ContainerConfig) {
					if noPath {
						c.LogPath = ""
					}
				})
			if code := c.Wait(t); code != 3 {
				t.Errorf("exit code %d", code)
			}
			if path := c.Status(t).LogPath; path != "" {
				t.Errorf("status has the log path %q", path)
			}
			if dir := pod.Request.Config.LogDirectory; dir != "" {
				if found := entries(t, dir); len(found) != 0 {
					t.Errorf("the log directory has %v", found)
				}
			}
		})
	}
}

// TestLogDirectoryIsDeletedUnderAContainer: kubelet may remove it early. The container goes on, and a reopened
// log is there again.
func TestLogDirectoryIsDeletedUnderAContainer(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Shell("i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"))
	c.AwaitLog(t, "begun", func(l nodetest.ContainerLog) bool { return len(l) > 3 })
	if err := os.RemoveAll(filepath.Dir(c.LogPath())); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	reopen(t, n, c)
	log := c.AwaitLog(t, "gone on", func(l nodetest.ContainerLog) bool { return len(l) > 3 })
	for i, line := range log {
		if number(line) != number(log[0])+i || number(line) < 4 {
			t.Fatalf("line %d of the new log is %q", i, line.Text)
		}
	}
}

func TestReopenContainerLogRefusals(t *testing.T) {
	n := sharedNode(t)
	ask := func(id string) error { return tryReopen(t.Context(), n, id) }
	wantError(t, ask("unknown"), codes.NotFound, "unknown")
	c := n.RunPod(t).Create(t, n.Image(t, labimage.Demo), nodetest.Command("sleep", "100000"))
	wantError(t, ask(c.ID), codes.FailedPrecondition, "created")
	c.Start(t)
	if err := ask(c.ID); err != nil {
		t.Error(err)
	}
	c.Stop(t, 0)
	wantError(t, ask(c.ID), codes.FailedPrecondition, "exited")
}
