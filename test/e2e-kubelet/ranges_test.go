package e2ekubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// sleeper is the spec of a pod that does nothing.
const sleeper = `
containers:
- {name: main, image: IMAGE, command: [sleep, infinity]}
`

// writtenDown is the file in which kubelet keeps the range of a pod.
type writtenDown struct {
	UIDs []idMapping `json:"uidMappings"`
	GIDs []idMapping `json:"gidMappings"`
}

type idMapping struct {
	HostID      uint32 `json:"hostId"`
	ContainerID uint32 `json:"containerId"`
	Length      uint32 `json:"length"`
}

// rangeOf returns the range that kubelet wrote down.
func (p *pod) rangeOf(t testing.TB) idMapping {
	t.Helper()
	now := p.ready(t)
	text, err := os.ReadFile(filepath.Join(p.node.kubelet.PodDir(string(now.UID)), "userns"))
	if err != nil {
		t.Fatal(err)
	}
	var written writtenDown
	if err := json.Unmarshal(text, &written); err != nil {
		t.Fatal(err)
	}
	if len(written.UIDs) != 1 || len(written.GIDs) != 1 || written.UIDs[0] != written.GIDs[0] {
		t.Fatalf("kubelet wrote down %s, want one mapping for uids and gids", text)
	}
	return written.UIDs[0]
}

// extent is the range as the lab has it.
func (m idMapping) extent() labnode.Extent { return labnode.Extent{Start: m.HostID, Length: m.Length} }

// wantRange holds that the pod has the range that kubelet wrote down, or else that a sandbox of a pod that has ended has it still, and
// returns what the pod has. For kubelet gives a range to another pod as soon as its own has ended, and removes the sandbox
// up to a minute later.
func (p *pod) wantRange(t testing.TB) idMapping {
	t.Helper()
	written := p.rangeOf(t)
	info := p.node.PodInfo(t, p.sandbox(t).ID)
	if info.RequestedRange != written.extent() {
		t.Errorf("kubelet sent %+v for %s, and wrote %+v down", info.RequestedRange, p.name, written)
	}
	has := idMapping{HostID: info.Range.Start, Length: info.Range.Length}
	if has != written {
		t.Logf("%s has %+v: %s", p.name, has, info.Remapped)
		p.wantExcuse(t, written, has, info.Remapped)
	}
	p.wantMap(t, has)
	return has
}

// wantExcuse holds that a pod which has not the range that kubelet sent has one of the pool's own, or that of its own sandbox of before; and
// that no pod which runs has what it did not get.
func (p *pod) wantExcuse(t testing.TB, sent, has idMapping, remapped string) {
	t.Helper()
	if strings.Contains(remapped, fmt.Sprintf("which holds %d:%d", has.HostID, has.Length)) {
		return
	}
	ended := strings.Contains(remapped, "has stopped") || strings.Contains(remapped, "quarantined")
	if !ended || !p.node.Pool().Contains(has.HostID) {
		t.Errorf("%s has %+v: %q", p.name, has, remapped)
		return
	}
	resp, err := p.node.Runtime.ListPodSandbox(context.WithoutCancel(t.Context()), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range resp.Items {
		info, err := p.node.TryPodInfo(t, other.Id)
		if grpcstatus.Code(err) == codes.NotFound { // the tests beside this one end, too
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.Range.Contains(sent.HostID) || sent.extent().Contains(info.Range.Start) {
			t.Errorf("%s has %+v, because %s has what kubelet sent, and runs: %s", p.name, has, other.Metadata.Name, remapped)
		}
	}
}

// wantMap holds the kernel's map of a container's first process, and what CRI reports, against a range.
func (p *pod) wantMap(t testing.TB, want idMapping) {
	t.Helper()
	pid := p.container(t, "main").PID(t)
	for _, kind := range []string{"uid_map", "gid_map"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, kind))
		if err != nil {
			t.Fatal(err)
		}
		var got idMapping
		if _, err := fmt.Sscan(string(text), &got.ContainerID, &got.HostID, &got.Length); err != nil || strings.Count(string(text), "\n") != 1 || got != want {
			t.Errorf("%s is %q, want one line of %+v (%v)", kind, text, want, err)
		}
	}
	users := p.sandbox(t).Status(t).GetLinux().GetNamespaces().GetOptions().GetUsernsOptions()
	for _, list := range [][]*runtimeapi.IDMapping{users.GetUids(), users.GetGids()} {
		if len(list) != 1 || (idMapping{HostID: list[0].HostId, ContainerID: list[0].ContainerId, Length: list[0].Length}) != want {
			t.Errorf("PodSandboxStatus reports %v, want %+v", list, want)
		}
	}
}

func TestPodsGetTheRangesThatKubeletWroteDown(t *testing.T) {
	n := parallelNode(t)
	seen, asWritten := map[uint32]bool{}, 0
	// Few of kubelet's ranges are those of pods that have ended, and yet five draws can all meet one: no more than twenty do.
	for round := 0; round == 0 || asWritten == 0 && round < 4; round++ {
		var pods []*pod
		for range 5 {
			pods = append(pods, n.run(t, false, sleeper))
		}
		for _, p := range pods {
			written, got := p.rangeOf(t), p.wantRange(t)
			if !n.Kubelet().Contains(written.HostID) || written.Length != labnode.IDsPerRange || written.ContainerID != 0 {
				t.Errorf("kubelet chose %+v, want ids of its own", written)
			}
			if seen[got.HostID] {
				t.Errorf("two pods have %+v", got)
			}
			seen[got.HostID] = true
			if got == written {
				asWritten++
			}
			if inside := p.sh(t, "cat /proc/self/uid_map"); strings.Join(strings.Fields(inside), " ") != fmt.Sprintf("0 %d 65536", got.HostID) {
				t.Errorf("inside the pod the map is %q", inside)
			}
		}
	}
	if asWritten == 0 {
		t.Error("no pod has the range that kubelet wrote down")
	}
}

func TestPodWithHostUsersHasNoRange(t *testing.T) {
	n := parallelNode(t)
	p := n.run(t, true, sleeper)
	now := p.ready(t)
	if _, err := os.Stat(filepath.Join(n.kubelet.PodDir(string(now.UID)), "userns")); !os.IsNotExist(err) {
		t.Errorf("kubelet wrote a range down: %v", err)
	}
	if got := strings.Fields(p.sh(t, "cat /proc/self/uid_map")); strings.Join(got, " ") != "0 0 4294967295" {
		t.Errorf("the map is %v, want the host's", got)
	}
}

// TestSamePodAgain brings a static pod back under the uid that it had, which is a hash of its manifest, while
// its range may rest still. kubelet has forgotten that range and draws another; a pod of which a sandbox is still there keeps the
// one that it has.
func TestSamePodAgain(t *testing.T) {
	n := parallelNode(t)
	p := n.run(t, false, sleeper)
	first := p.ready(t)
	had := p.wantRange(t)
	text, err := os.ReadFile(p.manifest)
	if err != nil {
		t.Fatal(err)
	}
	p.remove(t)
	before := p.allSandboxes(t)
	if err := os.WriteFile(p.manifest, text, 0o644); err != nil {
		t.Fatal(err)
	}
	second := p.ready(t)
	if first.UID != second.UID {
		t.Errorf("the pod's uid is %s, and was %s", second.UID, first.UID)
	}
	got, left := p.wantRange(t), p.allSandboxes(t)
	if got == had {
		return
	}
	for _, old := range before {
		if slices.ContainsFunc(left, func(s *runtimeapi.PodSandbox) bool { return s.Id == old.Id }) {
			t.Errorf("the pod has %+v, and had %+v, of which its sandbox %s is still there", got, had, old.Id)
		}
	}
}
