package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// poolCommand runs `userns-shim pool` beside the node's daemon.
func poolCommand(t *testing.T, n *nodetest.Node, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), shared.programs(t).daemon, append([]string{"pool", "--state", n.Daemon.State}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// wantPool runs a command that has to succeed.
func wantPool(t *testing.T, n *nodetest.Node, args ...string) string {
	t.Helper()
	stdout, stderr, code := poolCommand(t, n, args...)
	if code != 0 {
		t.Fatalf("pool %q exits with %d: %s", args, code, stderr)
	}
	return stdout
}

// refusedPool runs a command that has to fail with a code and words.
func refusedPool(t *testing.T, n *nodetest.Node, code int, says string, args ...string) {
	t.Helper()
	if _, stderr, got := poolCommand(t, n, args...); got != code || !strings.Contains(stderr, says) {
		t.Errorf("pool %q exits with %d and says %q, want %d and %q", args, got, stderr, code, says)
	}
}

func TestPoolCommandsShowThePool(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 4})
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.User(1000, 1000))
	start := pod.Range(t)

	var status admin.PoolStatus
	if err := json.Unmarshal([]byte(wantPool(t, n, "status", "-o", "json")), &status); err != nil {
		t.Fatal(err)
	}
	if s := status.Segments[0]; s.Name != "pool" || s.Capacity != 4 || s.Free != 3 || s.Allocated != 1 || len(s.Extents) != 1 {
		t.Errorf("status %+v", s)
	}
	if got := wantPool(t, n, "status"); !strings.Contains(got, "[#####...............] 25.0%") {
		t.Errorf("status prints\n%s", got)
	}
	if got := wantPool(t, n, "status", "-o", "yaml"); !strings.Contains(got, "capacity: 4\n") {
		t.Errorf("status prints\n%s", got)
	}
	name := pod.Request.Config.Metadata.Namespace + "/" + pod.Request.Config.Metadata.Name
	for _, arg := range []string{strconv.FormatUint(uint64(start)+1000, 10), "pid:" + strconv.Itoa(c.PID(t))} {
		got := fields(wantPool(t, n, "who", arg))
		want := fmt.Sprintf("%d 1000 %d:65536 allocated %s", start+1000, start, name)
		if !strings.Contains(got, want) {
			t.Errorf("who %s prints %q, want %q", arg, got, want)
		}
	}
	refusedPool(t, n, 1, "no pod", "who", "5")
	refusedPool(t, n, 2, "neither", "who", "five")
	if got, want := wantPool(t, n, "export"), fmt.Sprintf("userns-shim:%d:%d\n", n.Pool().Start, n.Pool().Length); got != want {
		t.Errorf("export prints %q, want %q", got, want)
	}
	refusedPool(t, n, 2, "--format", "export", "-o", "json")
	var ranges []admin.Range
	if err := json.Unmarshal([]byte(wantPool(t, n, "export", "--format", "json")), &ranges); err != nil || len(ranges) != 1 || ranges[0].Start != start {
		t.Errorf("export prints %+v, %v", ranges, err)
	}
}

func TestPoolCommandsReserveAndRelease(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 2})
	pod := n.RunPod(t)
	spare := fmt.Sprintf("%d:65536", n.Pool().Start+65536)
	taken := fmt.Sprintf("%d:65536", pod.Range(t))
	if taken == spare {
		spare = fmt.Sprintf("%d:65536", n.Pool().Start)
	}
	refusedPool(t, n, 1, "overlaps", "reserve", "agent", taken)
	refusedPool(t, n, 2, "reservation name", "reserve", "a:b", spare)
	refusedPool(t, n, 2, "reservation name", "release", "a b")
	refusedPool(t, n, 2, "range", "reserve", "agent", "everything")
	wantPool(t, n, "reserve", "agent", spare)
	wantPool(t, n, "reserve", "agent", spare) // again
	refusedPool(t, n, 1, "which names", "reserve", "agent", "65536:65536")
	if _, err := n.TryRunPod(t, n.PodRequest(t)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a pod beside the reservation: %v, want ResourceExhausted", err)
	}
	crash(t, n)
	if got := fields(wantPool(t, n, "list")); !strings.Contains(got, spare+" reserved pool reserved as agent") {
		t.Errorf("after a restart list prints %q", got)
	}
	refusedPool(t, n, 1, "pool list shows", "release", "nobody")
	refusedPool(t, n, 1, "remove the pods", "release", taken)
	refusedPool(t, n, 1, "allocated", "release", "--force", taken)
	refusedPool(t, n, 1, "not in quarantine", "release", "--force", "--dry-run", taken)
	refusedPool(t, n, 2, "--force", "release", "--force", "agent")
	wantPool(t, n, "release", "agent")
	n.RunPod(t)
	pod.Remove(t)
	wantPool(t, n, "release", taken) // just released: it looks whether anything is left
	if got := wantPool(t, n, "list"); strings.Contains(got, taken) {
		t.Errorf("list prints a range that was released:\n%s", got)
	}
}

// TestPoolCommandsNeedTheDaemon and its socket, which is root's.
func TestPoolCommandsNeedTheDaemon(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	if got := onNodeOutput(t, n, "stat", "-c", "%a %u", admin.SocketPath(n.Daemon.State)); got != "600 0" {
		t.Errorf("the admin socket has mode and owner %s, want 600 0", got)
	}
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	refusedPool(t, n, 1, "start it", "status")
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestPoolReleaseSaysWhatItBreaks before it does, and names who would share ids with the next pod.
func TestPoolReleaseSaysWhatItBreaks(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 1, Daemon: labnode.DaemonOptions{Quarantine: "0s"}})
	pod := n.RunPod(t)
	start := pod.Range(t)
	taken := fmt.Sprintf("%d:65536", start)
	survivor := exec.Command("setpriv", "--reuid", strconv.FormatUint(uint64(start)+77, 10), "--clear-groups", "sleep", "100")
	surviving(t, survivor)
	pod.Remove(t)
	who := fmt.Sprintf("process %d (sleep), which has the id %d", survivor.Process.Pid, start+77)
	refusedPool(t, n, 1, who, "release", taken) // which has looked
	if _, err := n.TryRunPod(t, n.PodRequest(t)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a pod beside the survivor: %v", err)
	}
	if got := completion(t, n, "pool", "release", ""); got != taken+"\tquarantined, left: credentials" {
		t.Errorf("release completes to %q", got)
	}
	_, stderr, code := poolCommand(t, n, "release", "--force", "--dry-run", taken)
	if code != 0 || !strings.Contains(stderr, who) || !strings.Contains(stderr, "each can read, change and signal") {
		t.Errorf("a dry run exits with %d and says %q", code, stderr)
	}
	if got := wantPool(t, n, "list"); !strings.Contains(got, taken) {
		t.Errorf("a dry run released it:\n%s", got)
	}
	if _, stderr, code := poolCommand(t, n, "release", "--force", taken); code != 0 || !strings.Contains(stderr, who) {
		t.Errorf("a release by force exits with %d and says %q", code, stderr)
	}
	if got := n.RunPod(t).Range(t); got != start {
		t.Errorf("after the release a pod has %d, want %d", got, start)
	}
}

// TestPoolCompletion asks the daemon for what there is.
func TestPoolCompletion(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 4})
	onNodeFile(t, n, "/etc/subuid", fmt.Sprintf("mallory:%d:65536\n", n.Pool().Start+2*65536))
	onNodeFile(t, n, "/etc/subgid", "")
	pod := n.RunPod(t)
	spare := fmt.Sprintf("%d:65536", n.Pool().Start+3*65536)
	wantPool(t, n, "reserve", "agent", spare)
	checkPool(t, n, 1, "--fresh")
	md := pod.Request.Config.Metadata
	for args, want := range map[string]string{
		"pool release ":       "agent\treserved: " + spare,
		"pool who ":           fmt.Sprintf("%d\tallocated: %s/%s\n%d\treserved: reserved as agent", pod.Range(t), md.Namespace, md.Name, n.Pool().Start+3*65536),
		"pool reserve name ":  fmt.Sprintf("%d:65536\t", n.Pool().Start+2*65536),
		"pool release agent ": "",
		"pool reserve ":       "",
	} {
		if got := completion(t, n, strings.Split(args, " ")...); got != want && (want == "" || !strings.HasPrefix(got, want)) {
			t.Errorf("%q completes to %q, want %q", args, got, want)
		}
	}
}

// completion is what the shell is given to choose from for the last of the words.
func completion(t *testing.T, n *nodetest.Node, words ...string) string {
	t.Helper()
	args := append([]string{"__complete", words[0], words[1], "--state", n.Daemon.State}, words[2:]...)
	out, err := exec.CommandContext(t.Context(), shared.programs(t).daemon, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	text, _, found := strings.Cut("\n"+string(out), "\n:")
	if !found {
		t.Errorf("%q completes to %q", words, out)
	}
	return strings.TrimSpace(text)
}
