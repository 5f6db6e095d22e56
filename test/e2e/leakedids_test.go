package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// leakNode is a node with a pod that runs, which no repair may disturb.
type leakNode struct {
	*nodetest.Node
	bystander *nodetest.Container
	pod       *nodetest.Pod
	pid       int
	start     uint32
}

func startLeakNode(t *testing.T, interval string) *leakNode {
	t.Helper()
	n := &leakNode{Node: ownNode(t, labnode.Options{PoolRanges: 8, Daemon: labnode.DaemonOptions{Reconcile: interval}})}
	n.pod = n.RunPod(t)
	n.bystander = n.pod.Run(t, n.Image(t, labimage.Demo))
	n.pid, n.start = n.bystander.PID(t), n.pod.Range(t)
	return n
}

func (n *leakNode) wantUndisturbed(t *testing.T) {
	t.Helper()
	if pid, start := n.bystander.PID(t), n.pod.Range(t); pid != n.pid || start != n.start {
		t.Errorf("the pod beside has process %d and range %d, had %d and %d", pid, start, n.pid, n.start)
	}
	if got := fields(n.bystander.Exec(t, "cat", "/proc/self/uid_map")); got != fmt.Sprintf("0 %d 65536", n.start) {
		t.Errorf("uid_map of the pod beside is %q", got)
	}
	n.wantEntry(t, n.start, "allocated")
}

// edit changes the database of the stopped daemon, and starts it again.
func (n *leakNode) edit(t *testing.T, change func(tx *state.Tx) error) {
	t.Helper()
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	db, err := state.Open(state.Options{Path: filepath.Join(n.Daemon.Root, "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// dropSandbox takes the sandbox's record and name out of the database.
func dropSandbox(tx *state.Tx, id string) error {
	rows := state.NewBucket[sandbox.Record](sandbox.Bucket)
	rec, err := rows.Get(tx, id)
	if err != nil {
		return err
	}
	return errors.Join(rows.Delete(tx, id), tx.Raw("sandbox-names").Delete(rec.Name()))
}

// dropEntry takes the range that begins at start out of the ledger.
func dropEntry(tx *state.Tx, start uint32) error {
	return tx.Raw(sandbox.PoolBucket).Delete(fmt.Sprintf("range/%08x", start))
}

// leaks asks the daemon what the last look found.
func (n *leakNode) leaks(t *testing.T) []admin.Leak {
	t.Helper()
	got, err := admin.NewClient(admin.SocketPath(n.Daemon.State)).PoolLeaks(t.Context(), false)
	if err != nil || got.Error != "" {
		t.Fatalf("leaks: %v %s", err, got.Error)
	}
	return got.Leaks
}

// wantLeak returns the leak of a kind at a range, as it was found and counted, and named in the log with its pod.
func (n *leakNode) wantLeak(t *testing.T, kind string, start uint32, repaired bool) admin.Leak {
	t.Helper()
	for _, l := range n.leaks(t) {
		if l.Kind != kind || l.Start != start {
			continue
		}
		if (l.Repair != "") != repaired || (l.Remedy != "") == repaired {
			t.Errorf("leak %+v; repaired has to be %t", l, repaired)
		}
		if found := metric(t, n.Node, fmt.Sprintf(`userns_shim_idpool_leaks_found_total{kind=%q}`, kind)); found < 1 {
			t.Errorf("%g leaks of kind %s were counted", found, kind)
		}
		if fixed := metric(t, n.Node, fmt.Sprintf(`userns_shim_idpool_leaks_repaired_total{kind=%q}`, kind)); (fixed > 0) != repaired {
			t.Errorf("%g repairs of kind %s were counted, repaired is %t", fixed, kind, repaired)
		}
		log, err := os.ReadFile(n.Daemon.Log)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(log), fmt.Sprintf(`kind=%q range="%d:%d" pod=%q`, kind, l.Start, l.Length, l.Pod)) {
			t.Errorf("the log does not name %+v", l)
		}
		return l
	}
	t.Fatalf("no leak of kind %s at %d among %+v", kind, start, n.leaks(t))
	return admin.Leak{}
}

// wantEntry checks the state that the ledger has for a range, "" for free.
func (n *leakNode) wantEntry(t *testing.T, start uint32, want string) {
	t.Helper()
	var list []admin.Range
	if err := json.Unmarshal([]byte(wantPool(t, n.Node, "list", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, r := range list {
		if r.Start == start {
			got = r.State
		}
	}
	if got != want {
		t.Errorf("the ledger has %d as %q, want %q", start, got, want)
	}
}

// eventuallyRepaired waits for two looks of the daemon's own. Each is followed by a pause of fifty times what it took, and on a
// busy machine that is what the wait is made of.
func (n *leakNode) eventuallyRepaired(t *testing.T, what string, condition func() bool) {
	t.Helper()
	client, began := admin.NewClient(admin.SocketPath(n.Daemon.State)), time.Now()
	took := time.Duration(0)
	for ; !condition(); time.Sleep(50 * time.Millisecond) {
		last, err := client.PoolLeaks(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := time.ParseDuration(last.Took); err == nil {
			took = max(took, d)
		}
		if time.Since(began) > 10*time.Second+2*50*took {
			t.Fatalf("after %v, with looks of up to %v, still not: %s", time.Since(began), took, what)
		}
	}
	t.Logf("%s after %v, with looks of up to %v", what, time.Since(began), took)
}

func (n *leakNode) leaked(t *testing.T) float64 {
	t.Helper()
	return metric(t, n.Node, `userns_shim_idpool_ranges{segment="pool",state="leaked"}`)
}

func TestLeakedLedgerEntryGoesToQuarantine(t *testing.T) {
	t.Parallel()
	n := startLeakNode(t, "0s")
	start := n.Pool().Start + 5*idpool.Unit
	n.edit(t, func(tx *state.Tx) error {
		pool, err := idpool.Load(tx.Raw(sandbox.PoolBucket), idpool.Options{})
		if err != nil {
			return err
		}
		return pool.Claim(tx.Raw(sandbox.PoolBucket), "ghost", strings.Repeat("ab", 32), idpool.Range{Start: start, Length: idpool.Unit})
	})
	l := n.wantLeak(t, "ledger", start, true)
	if l.Pod != "ghost" || l.Sandbox != strings.Repeat("ab", 32) {
		t.Errorf("the leak is %+v", l)
	}
	n.wantEntry(t, start, "quarantined")
	if n.leaked(t) != 0 {
		t.Errorf("%g ranges count as leaked after the repair", n.leaked(t))
	}
	n.wantUndisturbed(t)
}

// TestLeakedSandboxIsUnpinned: the record of a pod is lost. Nothing of it that runs is touched, by the look at the start or by those
// that follow, until the last process is gone.
func TestLeakedSandboxIsUnpinned(t *testing.T) {
	t.Parallel()
	n := startLeakNode(t, "100ms")
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo))
	start, pid, paths := pod.Range(t), c.PID(t), sandbox.PathsOf(n.Daemon.State, pod.ID)
	n.edit(t, func(tx *state.Tx) error { return dropSandbox(tx, pod.ID) })
	n.wantEntry(t, start, "quarantined")
	l := n.wantLeak(t, "pin", start, false)
	if l.Sandbox != pod.ID || l.Pod != pod.Request.Config.Metadata.Uid || !strings.Contains(l.Found, paths.Namespaces) || !strings.Contains(l.Found, "process") {
		t.Errorf("the leak is %+v", l)
	}
	if n.leaked(t) != 1 {
		t.Errorf("%g ranges count as leaked, want 1", n.leaked(t))
	}
	if got := readStatusPage(t, n.Node).squares["pool"]; count(got, "leaked") != 1 || count(got, "allocated") != 1 {
		t.Errorf("the status page shows %q, want one leaked and one allocated", got)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
		t.Errorf("the process of the lost pod was ended: %v", err)
	}
	c.Remove(t)
	n.eventuallyRepaired(t, "nothing is left of the sandbox", func() bool {
		_, err := os.Stat(filepath.Join(n.World.ProcDir(), "root", paths.Dir))
		return errors.Is(err, os.ErrNotExist) && n.leaked(t) == 0
	})
	if repaired := metric(t, n.Node, `userns_shim_idpool_leaks_repaired_total{kind="pin"}`); repaired != 1 {
		t.Errorf("%g pins were repaired, want 1", repaired)
	}
	n.wantUndisturbed(t)
}

// TestLeakedSandboxWithMoreIDsRestsWithAllOfThem: neither a record nor the ledger tells of the pod, only its namespaces do.
func TestLeakedSandboxWithMoreIDsRestsWithAllOfThem(t *testing.T) {
	t.Parallel()
	n := startLeakNode(t, "100ms")
	const ids = 2 * idpool.Unit
	pod := n.RunPod(t, nodetest.MappingOf(labnode.Extent{Start: n.Kubelet().Start, Length: ids}))
	c := pod.Run(t, n.Image(t, labimage.Demo))
	n.edit(t, func(tx *state.Tx) error {
		return errors.Join(dropSandbox(tx, pod.ID), dropEntry(tx, n.Kubelet().Start))
	})
	if l := n.wantLeak(t, "pin", n.Kubelet().Start, false); l.Length != ids {
		t.Errorf("the leak has %d ids, want %d: %+v", l.Length, ids, l)
	}
	n.wantEntry(t, n.Kubelet().Start, "quarantined")
	next := n.Kubelet().Start + idpool.Unit
	if out := wantPool(t, n.Node, "who", strconv.FormatUint(uint64(next), 10)); !strings.Contains(out, "quarantined") {
		t.Errorf("who %d says %q, want it in quarantine", next, out)
	}
	c.Remove(t)
	n.eventuallyRepaired(t, "nothing is left of the sandbox", func() bool {
		return metric(t, n.Node, `userns_shim_idpool_leaks_repaired_total{kind="pin"}`) == 1
	})
	n.wantUndisturbed(t)
}

// TestLeakedPinIsFoundByThePeriodicLook: a pin appears while the daemon runs.
func TestLeakedPinIsFoundByThePeriodicLook(t *testing.T) {
	t.Parallel()
	n := startLeakNode(t, "100ms")
	id := strings.Repeat("cd", 32)
	dir := sandbox.PathsOf(n.Daemon.State, id).Namespaces
	onNode(t, n.Node, "sh", "-c", fmt.Sprintf("mkdir -p %s && touch %s/uts && unshare --uts=%s/uts true", dir, dir, dir))
	n.eventuallyRepaired(t, "the pin was found and removed", func() bool {
		_, err := os.Stat(filepath.Join(n.World.ProcDir(), "root", filepath.Dir(dir)))
		return errors.Is(err, os.ErrNotExist) &&
			metric(t, n.Node, `userns_shim_idpool_leaks_repaired_total{kind="pin"}`) == 1
	})
	n.wantUndisturbed(t)
}

func TestSandboxWithoutLedgerEntryIsRecordedAgain(t *testing.T) {
	t.Parallel()
	n := startLeakNode(t, "0s")
	other := n.RunPod(t, nodetest.Mapping(n.Kubelet().Start))
	n.edit(t, func(tx *state.Tx) error {
		// The other pod's range becomes a stranger's.
		if err := errors.Join(dropEntry(tx, n.start), dropEntry(tx, n.Kubelet().Start)); err != nil {
			return err
		}
		pool, err := idpool.Load(tx.Raw(sandbox.PoolBucket), idpool.Options{})
		if err != nil {
			return err
		}
		return pool.Reserve(tx.Raw(sandbox.PoolBucket), "stranger", idpool.Range{Start: n.Kubelet().Start, Length: idpool.Unit})
	})
	n.wantUndisturbed(t)
	var found []string
	for _, l := range n.leaks(t) {
		found = append(found, fmt.Sprintf("%s %d %t", l.Kind, l.Start, l.Repair != ""))
		if l.Start == n.Kubelet().Start && (!strings.Contains(l.Found, "stranger") || l.Sandbox != other.ID || l.Remedy == "") {
			t.Errorf("the conflict is told as %+v", l)
		}
	}
	for _, want := range []string{fmt.Sprintf("record %d true", n.start), fmt.Sprintf("record %d false", n.Kubelet().Start)} {
		if !strings.Contains(strings.Join(found, "\n"), want) {
			t.Errorf("found %q, want %q", found, want)
		}
	}
	if got := metric(t, n.Node, `userns_shim_idpool_ranges{segment="kubelet",state="leaked"}`); got != 1 {
		t.Errorf("%g ranges of kubelet count as leaked, want 1", got)
	}
	if fresh := n.RunPod(t).Range(t); fresh == n.start {
		t.Errorf("a new pod got the range %d of a living one", fresh)
	}
}

// TestProcessWithoutSandboxKeepsItsRange: nothing is known of a pod any more, but one of its processes lives.
func TestProcessWithoutSandboxKeepsItsRange(t *testing.T) {
	t.Parallel()
	n := startLeakNode(t, "0s")
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo))
	start := pod.Range(t)
	survivor := exec.Command("nsenter", "--user", "--target", strconv.Itoa(c.PID(t)), "--setuid", "0", "--setgid", "0", "sleep", "100")
	surviving(t, survivor)
	pod.Remove(t)
	n.edit(t, func(tx *state.Tx) error { return dropEntry(tx, start) })
	if l := n.wantLeak(t, "process", start, true); !strings.Contains(l.Found, fmt.Sprintf("process %d (sleep)", survivor.Process.Pid)) {
		t.Errorf("the leak is %+v", l)
	}
	n.wantEntry(t, start, "quarantined")
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/ns/user", survivor.Process.Pid)); err != nil {
		t.Errorf("the process was ended: %v", err)
	}
	n.wantUndisturbed(t)
}

// TestPodsThatComeAndGoAreNoLeaks looks again and again while pods are made and removed.
func TestPodsThatComeAndGoAreNoLeaks(t *testing.T) {
	t.Parallel()
	n := startLeakNode(t, "100ms")
	image := n.Image(t, labimage.Demo)
	client := admin.NewClient(admin.SocketPath(n.Daemon.State))
	stop, looked := make(chan struct{}), make(chan int)
	go func() {
		looks := 0
		for ; ; looks++ {
			select {
			case <-stop:
				looked <- looks
				return
			default:
			}
			got, err := client.PoolLeaks(t.Context(), true)
			if err != nil || got.Error != "" || len(got.Leaks) > 0 {
				t.Errorf("look %d: %v %+v", looks, err, got)
			}
		}
	}()
	t.Run("pods", func(t *testing.T) {
		for worker := range 4 {
			t.Run(strconv.Itoa(worker), func(t *testing.T) {
				t.Parallel()
				for i := range 6 {
					opts := []nodetest.PodOption{}
					if i%2 == 1 {
						opts = append(opts, shareProcesses)
					}
					pod := n.RunPod(t, opts...)
					pod.Run(t, image)
					pod.Remove(t)
				}
			})
		}
	})
	close(stop)
	looks := <-looked
	t.Logf("%d looks beside 24 pods", looks)
	if looks < 10 {
		t.Errorf("only %d looks", looks)
	}
	for _, kind := range []string{"ledger", "record", "pin", "process", "layer", "container"} {
		if found := metric(t, n.Node, fmt.Sprintf(`userns_shim_idpool_leaks_found_total{kind=%q}`, kind)); found != 0 {
			t.Errorf("%g leaks of kind %s were counted", found, kind)
		}
	}
	n.wantUndisturbed(t)
}
