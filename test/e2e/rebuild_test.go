package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// busyNode is a node with pods of every sort, whose daemon is going to lose its database.
type busyNode struct {
	*nodetest.Node
	pods       []*nodetest.Pod
	containers []*nodetest.Container
	writer     *nodetest.Container // logs a number ten times a second
	exited     *nodetest.Container
	mapped     []*nodetest.Pod // with a user namespace, the one without containers and the stopped one last
	dir        string          // the writer's volume

	sandboxesBefore  map[string]*runtimeapi.PodSandboxStatus
	containersBefore map[string]*runtimeapi.ContainerStatus
	processesBefore  map[string]int
}

func startBusyNode(t *testing.T) *busyNode {
	t.Helper()
	n := &busyNode{Node: ownNode(t, labnode.Options{PoolRanges: 16}), processesBefore: map[string]int{}}
	image := n.Image(t, labimage.Demo)
	n.dir = volume(t, n.Node)
	annotate := func(req *runtimeapi.RunPodSandboxRequest) {
		req.Config.Annotations = map[string]string{"note": "kept", "kubernetes.io/config.seen": "today"}
		req.Config.Labels = map[string]string{"app": "web"}
		req.Config.Metadata.Attempt = 3
	}
	own := n.RunPod(t, annotate)
	claimed, host, sharing := n.RunPod(t, nodetest.Mapping(n.Kubelet().Start+4*65536)), n.RunPod(t, nodetest.HostUsers), n.RunPod(t, shareProcesses)
	bare, stopped := n.RunPod(t), n.RunPod(t)
	stopped.Stop(t)
	n.mapped = []*nodetest.Pod{own, claimed, sharing, bare, stopped}
	n.pods = append(n.mapped, host)
	named := func(c *runtimeapi.ContainerConfig) {
		c.Labels = map[string]string{"io.kubernetes.container.name": "writer", "tier": "front"}
		c.Annotations = map[string]string{"io.kubernetes.container.restartCount": "2"}
		c.Metadata.Attempt = 2
	}
	n.writer = own.Run(t, image, nodetest.Mount(n.dir, "/vol"), nodetest.Shell(counter), named)
	n.exited = own.Run(t, image, nodetest.Shell("echo last words; exit 5"))
	if code := n.exited.Wait(t); code != 5 {
		t.Fatalf("exit code %d", code)
	}
	created := own.Create(t, image, nodetest.Shell("sleep 1000"))
	n.containers = []*nodetest.Container{n.writer, n.exited, created}
	for _, pod := range []*nodetest.Pod{claimed, host, sharing, sharing} {
		n.containers = append(n.containers, pod.Run(t, image))
	}
	n.remember(t)
	return n
}

func (n *busyNode) remember(t *testing.T) {
	t.Helper()
	n.sandboxesBefore, n.containersBefore = n.statuses(t)
	for _, c := range n.containers {
		if n.containersBefore[c.ID].State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			n.processesBefore[c.ID] = c.PID(t)
		}
	}
}

// statuses are what CRI says of everything.
func (n *busyNode) statuses(t *testing.T) (map[string]*runtimeapi.PodSandboxStatus, map[string]*runtimeapi.ContainerStatus) {
	t.Helper()
	sandboxes, containers := map[string]*runtimeapi.PodSandboxStatus{}, map[string]*runtimeapi.ContainerStatus{}
	list, err := n.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range list.Items {
		resp, err := n.Runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: item.Id})
		if err != nil {
			t.Fatal(err)
		}
		sandboxes[item.Id] = resp.Status
	}
	all, err := n.Runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range all.Containers {
		resp, err := n.Runtime.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: item.Id})
		if err != nil {
			t.Fatal(err)
		}
		containers[item.Id] = resp.Status
	}
	return sandboxes, containers
}

// wantAsBefore compares all that CRI says of pods and containers, times, labels, annotations, ranges and log paths
// among it, and their processes.
func (n *busyNode) wantAsBefore(t *testing.T) {
	t.Helper()
	sandboxes, containers := n.statuses(t)
	if len(sandboxes) != len(n.sandboxesBefore) || len(containers) != len(n.containersBefore) {
		t.Errorf("%d sandboxes and %d containers, want %d and %d", len(sandboxes), len(containers), len(n.sandboxesBefore), len(n.containersBefore))
	}
	for id, want := range n.sandboxesBefore {
		if !proto.Equal(sandboxes[id], want) {
			t.Errorf("sandbox is\n%v\nwant\n%v", sandboxes[id], want)
		}
	}
	for id, want := range n.containersBefore {
		if !proto.Equal(containers[id], want) {
			t.Errorf("container is\n%v\nwant\n%v", containers[id], want)
		}
	}
	for _, c := range n.containers {
		if want, ok := n.processesBefore[c.ID]; ok && c.PID(t) != want {
			t.Errorf("container %s has process %d, had %d", c.ID, c.PID(t), want)
		}
	}
}

// wantUsable uses what runs: exec, logs that go on, new pods that share no range, stop and remove.
func (n *busyNode) wantUsable(t *testing.T) {
	t.Helper()
	for _, c := range n.containers {
		if _, runs := n.processesBefore[c.ID]; runs {
			if got := c.Exec(t, "echo", "in"); strings.TrimSpace(got) != "in" {
				t.Errorf("exec in %s says %q", c.ID, got)
			}
		}
	}
	before := lastNumber(t, n.writer)
	n.writer.AwaitLog(t, fmt.Sprintf("gone on beyond %d", before), func(l nodetest.ContainerLog) bool {
		return len(l) > 0 && number(l[len(l)-1]) > before+10
	})
	taken := map[uint32]bool{}
	for _, pod := range n.mapped {
		taken[pod.Range(t)] = true
	}
	for range 5 {
		fresh := n.RunPod(t)
		if start := fresh.Range(t); taken[start] {
			t.Errorf("a new pod got the range %d of another", start)
		} else {
			taken[start] = true
		}
		fresh.Run(t, n.Image(t, labimage.Demo)).Exec(t, "true")
	}
	if n.containers[2].Start(t); n.containers[2].Status(t).State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Error("the container that was created does not start")
	}
	write(t, filepath.Join(n.dir, "stop"), "", 0, 0)
	if got := n.writer.Wait(t); got != 9 {
		t.Errorf("exit code of the writer is %d, want 9", got)
	}
	wantGrowing(t, n.writer.Log(t))
	for _, c := range n.containers {
		c.Stop(t, time.Second)
		c.Remove(t)
	}
	for _, pod := range n.pods {
		pod.Remove(t)
	}
}

// rebuild runs the command beside the dead daemon, in the node's namespaces.
func (n *busyNode) rebuild(t *testing.T, args ...string) (string, error) {
	t.Helper()
	argv := append([]string{"pool", "rebuild", "--config", n.Daemon.Config}, args...)
	out, err := n.World.Output(exec.Command(shared.programs(t).daemon, argv...))
	return string(out), err
}

type rebuiltSandbox struct{ ID, Pod, UID, Phase, Range, Source string }

// rebuiltPlan is the part of the command's JSON that tests look at.
type rebuiltPlan struct {
	Kept      string
	Written   bool
	Sandboxes []rebuiltSandbox
	Resting   []struct{ Range, Why string }
	Notes     []string
}

func (n *busyNode) wantRebuild(t *testing.T, args ...string) (plan rebuiltPlan) {
	t.Helper()
	out, err := n.rebuild(t, append(args, "-o", "json")...)
	if err != nil {
		t.Fatalf("pool rebuild: %v: %s", err, out)
	}
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return plan
}

// wantRefused starts the daemon, which has to say why not and what to do.
func (n *busyNode) wantRefused(t *testing.T, says ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := n.World.Output(exec.CommandContext(ctx, shared.programs(t).daemon, "serve", "--config", n.Daemon.Config))
	if err == nil || ctx.Err() != nil {
		t.Fatalf("the daemon was not refused: %v", err)
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the daemon says %q, without %q", err, want)
		}
	}
}

// TestRebuildOfADestroyedDatabase: the daemon is killed and its database destroyed in three ways; rebuilt, everything is as
// it was, and nothing has noticed.
func TestRebuildOfADestroyedDatabase(t *testing.T) {
	t.Parallel()
	for name, destroy := range map[string]func(path string, size int64) error{
		// Most of the file is room to grow.
		"truncated": func(path string, _ int64) error { return os.Truncate(path, 5*4096+100) },
		"overwritten": func(path string, size int64) error {
			return os.WriteFile(path, []byte(strings.Repeat("noise", int(size/5))), 0o600)
		},
		"gone": func(path string, _ int64) error { return os.Remove(path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startBusyNode(t)
			path := filepath.Join(n.Daemon.Root, "state.db")
			if out, err := n.rebuild(t); err == nil || !strings.Contains(err.Error(), "stop it first") {
				t.Errorf("while the daemon runs: %v %s", err, out)
			}
			if err := n.Daemon.Kill9(); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := destroy(path, info.Size()); err != nil {
				t.Fatal(err)
			}
			bad, _ := os.ReadFile(path)
			n.wantRefused(t, path, "userns-shim pool rebuild")
			plan := n.wantRebuild(t, "--dry-run")
			if after, _ := os.ReadFile(path); plan.Written || string(after) != string(bad) || len(plan.Sandboxes) != len(n.pods) {
				t.Errorf("the dry run wrote, or plans %+v", plan)
			}
			plan = n.wantRebuild(t)
			kept, err := os.ReadFile(plan.Kept)
			if gone := name == "gone"; !plan.Written || !gone && (err != nil || string(kept) != string(bad)) || gone != (plan.Kept == "") {
				t.Errorf("the old database was not kept: %+v, %v", plan, err)
			}
			if err := n.Daemon.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			n.wantAsBefore(t)
			n.wantUsable(t)
			if got := metric(t, n.Node, `userns_shim_idpool_leaks_found_total{kind="record"}`); got != 0 {
				t.Errorf("%g records had no range in the new ledger", got)
			}
		})
	}
}

// wantBareFound: of the pod without containers the pins tell its ids, and CNI's cache its name, which the daemon lists it by.
func (n *busyNode) wantBareFound(t *testing.T, plan rebuiltPlan) {
	t.Helper()
	bare := n.mapped[3]
	md := bare.Request.Config.Metadata
	if !slices.ContainsFunc(plan.Sandboxes, func(s rebuiltSandbox) bool {
		return s.ID == bare.ID && s.Pod == md.Namespace+"/"+md.Name && s.UID == md.Uid
	}) {
		t.Errorf("no sandbox %s of pod %s/%s among %+v", bare.ID, md.Namespace, md.Name, plan.Sandboxes)
	}
	if !slices.ContainsFunc(plan.Notes, func(note string) bool { return strings.Contains(note, bare.ID+" of pod "+md.Namespace+"/"+md.Name) }) {
		t.Errorf("no note names the pod without containers: %q", plan.Notes)
	}
}

// TestRebuildWithoutRecords: the copies of the records are gone too. What kernel and containerd tell is enough to keep each range
// its pod's, and to stop and remove the pods.
func TestRebuildWithoutRecords(t *testing.T) {
	t.Parallel()
	n := startBusyNode(t)
	ranges := map[string]string{}
	for _, pod := range n.mapped[:4] { // the other has nothing on the node any more
		ranges[pod.ID] = fmt.Sprintf("%d:65536", pod.Range(t))
	}
	if err := n.Daemon.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(n.Daemon.Root, "state.db"), 100); err != nil {
		t.Fatal(err)
	}
	// Some are gone, one is damaged.
	files, err := filepath.Glob(filepath.Join(n.Daemon.State, "records", "*", "*.json"))
	if err != nil || len(files) != len(n.pods)+len(n.containers) {
		t.Fatalf("%d records outside of the database, %v", len(files), err)
	}
	for i, file := range files {
		if i == 0 {
			err = os.WriteFile(file, []byte("{}"), 0o600)
		} else {
			err = os.Remove(file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	plan := n.wantRebuild(t)
	got := map[string]string{}
	for _, s := range plan.Sandboxes {
		if s.Source != "node" || s.Phase != "stopped" {
			t.Errorf("sandbox %+v", s)
		}
		if s.Range != "" {
			got[s.ID] = s.Range
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(ranges) {
		t.Errorf("the ranges are %v, want %v", got, ranges)
	}
	n.wantBareFound(t, plan)
	if !slices.ContainsFunc(plan.Notes, func(note string) bool { return strings.Contains(note, files[0]) }) {
		t.Errorf("no note names the damaged file: %q", plan.Notes)
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range n.containers {
		if want, runs := n.processesBefore[c.ID]; runs && c.PID(t) != want {
			t.Errorf("container %s has process %d, had %d", c.ID, c.PID(t), want)
		}
	}
	if st := n.mapped[3].Status(t); st.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY || !strings.HasPrefix(ranges[n.mapped[3].ID], fmt.Sprint(n.mapped[3].Range(t))+":") {
		t.Errorf("the pod without containers is %+v, and had %s", st, ranges[n.mapped[3].ID])
	}
	for range 5 {
		start := fmt.Sprintf("%d:65536", n.RunPod(t).Range(t))
		for id, taken := range ranges {
			if start == taken {
				t.Errorf("a new pod got the range %s of %s", start, id)
			}
		}
	}
	for _, c := range n.containers {
		c.Stop(t, time.Second)
		c.Remove(t)
	}
	for _, pod := range n.pods {
		pod.Remove(t)
	}
}
