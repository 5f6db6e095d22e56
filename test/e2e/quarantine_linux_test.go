package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/pkg/container"
)

// surviving starts a sleep that outlives a pod, by a program that gives it its ids first, and returns once it sleeps; the
// function that is returned ends it.
func surviving(t *testing.T, survivor *exec.Cmd) (end func()) {
	t.Helper()
	if err := survivor.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { _, _ = survivor.Process.Kill(), survivor.Wait() }) // killed, which Wait tells
	t.Cleanup(end)
	eventually(t, "the survivor has its ids and sleeps", func() bool {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", survivor.Process.Pid))
		return err == nil && string(name) == "sleep\n"
	})
	return end
}

// asUser is a process with an id of the range, which is in no namespace of the pod.
func asUser(t *testing.T, _ claimNode, pod *nodetest.Pod) (end func()) {
	id := strconv.FormatUint(uint64(pod.Range(t))+77, 10)
	return surviving(t, exec.Command("setpriv", "--reuid", id, "--clear-groups", "sleep", "100"))
}

// asGroup is one with a supplementary group of the range.
func asGroup(t *testing.T, _ claimNode, pod *nodetest.Pod) (end func()) {
	id := strconv.FormatUint(uint64(pod.Range(t))+65535, 10)
	return surviving(t, exec.Command("setpriv", "--groups", id, "sleep", "100"))
}

// inNamespace is one that has entered the pod's user namespace.
func inNamespace(t *testing.T, n claimNode, pod *nodetest.Pod) (end func()) {
	c := pod.Run(t, n.Image(t, labimage.Demo))
	return surviving(t, exec.Command("nsenter", "--user", "--target", strconv.Itoa(c.PID(t)), "--preserve-credentials", "sleep", "100"))
}

// inNestedNamespace is one in a user namespace that maps a part of the range.
func inNestedNamespace(t *testing.T, _ claimNode, pod *nodetest.Pod) (end func()) {
	cmd, part := exec.Command("sleep", "100"), []syscall.SysProcIDMap{{HostID: int(pod.Range(t)) + 1000, Size: 10}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: part, GidMappings: part}
	return surviving(t, cmd)
}

// layer is a writable layer that containerd could not remove, as the runtime's are labelled.
func layer(t *testing.T, n claimNode, pod *nodetest.Pod) (end func()) {
	ctx := nodetest.InContainerd(t.Context())
	snapshots := snapshotsapi.NewSnapshotsClient(n.Engine)
	const key = "left-behind"
	_, err := snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: key, Labels: map[string]string{
		container.LabelIDs: extentText(pod.IDs(t)), "containerd.io/gc.root": "left behind",
	}})
	if err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if _, err := snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: key}); err != nil {
			t.Error(err)
		}
	})
}

// TestClaimOutOfQuarantine is granted at once when nothing of the last pod is left: the minimum age, here an hour, is
// waived, and that is counted.
func TestClaimOutOfQuarantine(t *testing.T) {
	t.Parallel()
	bothPolicies(t, labnode.DaemonOptions{Quarantine: "1h"}, func(t *testing.T, n claimNode) {
		const early = "userns_shim_idpool_quarantine_early_releases_total"
		for name, ids := range map[string]labnode.Extent{"kubelet's": slot(n.Kubelet(), 1), "in no segment": n.external(1)} {
			t.Run(name, func(t *testing.T) {
				counted := metric(t, n.Node, early)
				n.wantGranted(t, ids).Remove(t)
				if got := fields(wantPool(t, n.Node, "list")); !strings.Contains(got, extentText(ids)+" quarantined") {
					t.Errorf("list prints %q, want %s in quarantine", got, extentText(ids))
				}
				n.wantGranted(t, ids)
				if got := metric(t, n.Node, early); got != counted+1 {
					t.Errorf("%g early releases are counted, and %g before: want one more", got, counted)
				}
			})
		}
		t.Run("a part of two", func(t *testing.T) {
			wide := labnode.Extent{Start: slot(n.Kubelet(), 10).Start, Length: 131072}
			n.wantGranted(t, slot(wide, 0)).Remove(t)
			n.wantGranted(t, slot(wide, 1)).Remove(t)
			n.wantGranted(t, wide)
		})
	})
}

// TestClaimOfARangeThatIsStillInUse: each condition of quarantine keeps a range from the next pod, and only as long as it
// is unmet. The pod that had the range may have it back meanwhile.
func TestClaimOfARangeThatIsStillInUse(t *testing.T) {
	t.Parallel()
	bothPolicies(t, labnode.DaemonOptions{Quarantine: "0s"}, func(t *testing.T, n claimNode) {
		for i, tc := range []struct {
			name  string
			trace string
			leave func(*testing.T, claimNode, *nodetest.Pod) (end func())
		}{
			{"process in the namespace", "namespace", inNamespace},
			{"process in another namespace that maps it", "namespace", inNestedNamespace},
			{"process with a uid", "credentials", asUser},
			{"process with a group", "credentials", asGroup},
			{"writable layer", "layers", layer},
		} {
			t.Run(tc.name, func(t *testing.T) {
				ids := slot(n.Kubelet(), i)
				first := n.wantGranted(t, ids)
				samePod := nodetest.SamePod(first.Request)
				end := tc.leave(t, n, first)
				first.Remove(t)
				n.wantConflict(t, ids, "quarantine", "after pod "+first.Request.Config.Metadata.Uid, "with traces: ", tc.trace)
				n.wantGranted(t, ids, samePod, attempt(1)).Remove(t)
				end()
				n.wantGranted(t, ids)
			})
		}
	})
}

// TestForeignCopyOfAPinHoldsNoRange: a pod that has all of the host's file system mounted, as node-exporter has, has copies
// of all pins there were at its start. The kernel takes those away with the pins' files. One that it has bound
// elsewhere keeps the namespace alive, without a process, and its range is free all the same. It is told of, and no copy that will go.
func TestForeignCopyOfAPinHoldsNoRange(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 1, Daemon: labnode.DaemonOptions{Quarantine: "0s"}})
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	pod.Run(t, image)
	ids, pins := pod.IDs(t), pinned(t, n, "user")
	_, pin, _ := strings.Cut(pins[0], "/root/")
	watcher := n.RunPod(t, nodetest.HostUsers, privilegedPod).Run(t, image, privileged, nodetest.Mount("/", "/host"))
	watcher.Exec(t, "sh", "-c", "touch /tmp/copy && mount -o bind /host/"+pin+" /tmp/copy")
	wantCopies := func(want ...string) {
		t.Helper()
		var copies []string
		for _, line := range lines(watcher.Exec(t, "cat", "/proc/self/mountinfo")) {
			if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[3], "user:[") {
				copies = append(copies, f[4])
			}
		}
		if !slices.Equal(copies, want) {
			t.Fatalf("the watching pod has copies of the user namespace at %q, want %q", copies, want)
		}
	}
	wantCopies("/host/"+pin, "/tmp/copy")
	wantCopiesTold(t, n, ids)
	pod.Remove(t)
	wantCopies("/tmp/copy")
	wantCopiesTold(t, n, ids, fmt.Sprintf("process %d (", watcher.PID(t)), `at "/tmp/copy"`)
	next := n.RunPod(t)
	if got := next.IDs(t); got != ids {
		t.Errorf("the next pod has %+v, want the %+v of the pod that is gone", got, ids)
	}
	next.Run(t, image).Exec(t, "true")
	wantCopies("/tmp/copy")
	wantCopiesTold(t, n, ids, "which a pod has too")
	watcher.Exec(t, "umount", "/tmp/copy")
	wantCopiesTold(t, n, ids)
}

// wantCopiesTold wants pool check and the metrics to tell of one copy of a namespace with the ids, in these words, or of none.
func wantCopiesTold(t *testing.T, n *nodetest.Node, ids labnode.Extent, words ...string) {
	t.Helper()
	stdout, stderr, _ := poolCommand(t, n, "check", "--fresh", "-o", "json")
	var check admin.Check
	if err := json.Unmarshal([]byte(stdout), &check); err != nil {
		t.Fatalf("%v: %s%s", err, stdout, stderr)
	}
	check.Findings = slices.DeleteFunc(check.Findings, func(f admin.Finding) bool { return f.Code != "foreign-pin-copy" })
	if len(words) == 0 != (len(check.Findings) == 0) || len(check.Findings) > 1 {
		t.Fatalf("told are %+v, want %q", check.Findings, words)
	}
	if got := metric(t, n, `userns_shim_idpool_foreign_owners{kind="pin-copy"}`); int(got) != len(check.Findings) {
		t.Errorf("%g copies are in the metrics, %d are told of", got, len(check.Findings))
	}
	for _, f := range check.Findings {
		if f.Start != ids.Start || f.Severity != admin.SeverityWarning || f.Remedy == "" {
			t.Errorf("the finding is %+v", f)
		}
		for _, w := range words {
			if !strings.Contains(f.Message, w) {
				t.Errorf("%q does not say %q", f.Message, w)
			}
		}
	}
}
