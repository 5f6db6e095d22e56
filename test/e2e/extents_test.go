package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// configureExtents replaces idPool's lines of the configuration of a userns-shim that does not run.
func configureExtents(t *testing.T, n *nodetest.Node, lines ...string) {
	t.Helper()
	text, err := os.ReadFile(n.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	old := regexp.MustCompile(`(?m)^  (kubeletExtents|extents): .*\n`)
	if !old.Match(text) {
		t.Fatalf("the configuration has no extents: %s", text)
	}
	text = old.ReplaceAll(text, nil)
	for _, line := range lines {
		text = append(text, "  "+line+"\n"...)
	}
	if err := os.WriteFile(n.Daemon.Config, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// restartWith restarts userns-shim with other extents.
func restartWith(t *testing.T, n *nodetest.Node, lines ...string) {
	t.Helper()
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	configureExtents(t, n, lines...)
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func extentList(extents ...labnode.Extent) string {
	var list []string
	for _, e := range extents {
		list = append(list, fmt.Sprintf("{start: %d, length: %d}", e.Start, e.Length))
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// poolSegment is what `pool status` says of a segment.
func poolSegment(t *testing.T, n *nodetest.Node, name string) admin.Segment {
	t.Helper()
	var all admin.PoolStatus
	if err := json.Unmarshal([]byte(wantPool(t, n, "status", "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all.Segments, func(s admin.Segment) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("pool status has no segment %s: %+v", name, all)
	}
	return all.Segments[i]
}

func wantExtents(t *testing.T, n *nodetest.Node, segment string, want ...admin.Extent) {
	t.Helper()
	s := poolSegment(t, n, segment)
	ranges := 0
	for _, e := range want {
		ranges += int(e.Length / 65536)
	}
	if !slices.Equal(s.Extents, want) || s.Capacity != ranges {
		t.Errorf("segment %s has the extents %v and room for %d, want %v and %d", segment, s.Extents, s.Capacity, want, ranges)
	}
}

// TestExtentsOfTheConfiguration: several of each segment, in which pods run, and the defaults.
func TestExtentsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{NoDaemon: true})
	part := func(i, ranges int) labnode.Extent {
		return labnode.Extent{Start: slot(n.IDs, i).Start, Length: uint32(ranges) * 65536}
	}
	configureExtents(t, n, "kubeletExtents: "+extentList(part(40, 2), part(0, 1)), "extents: "+extentList(part(20, 1), part(10, 2)))
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantExtents(t, n, "kubelet", admin.Extent(part(0, 1)), admin.Extent(part(40, 2)))
	wantExtents(t, n, "pool", admin.Extent(part(10, 2)), admin.Extent(part(20, 1)))
	var pods []*nodetest.Pod
	for range 3 {
		pod := n.RunPod(t)
		if ids := pod.IDs(t); !slices.Contains([]labnode.Extent{part(10, 1), part(11, 1), part(20, 1)}, ids) {
			t.Errorf("a pod has %+v, want a range of the pool's extents", ids)
		}
		pods = append(pods, pod)
	}
	if _, err := n.TryRunPod(t, n.PodRequest(t)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("when both extents are used up: %v, want ResourceExhausted", err)
	}
	for _, i := range []int{0, 41} {
		if got := n.RunPod(t, nodetest.Mapping(part(i, 1).Start)).IDs(t); got != part(i, 1) {
			t.Errorf("a pod that claims %+v has %+v", part(i, 1), got)
		}
	}
	if s := poolSegment(t, n, "kubelet"); s.Allocated != 2 {
		t.Errorf("kubelet's segment has %d ranges allocated, want 2", s.Allocated)
	}
	for _, pod := range pods {
		pod.Remove(t)
	}
	restartWith(t, n, "kubeletExtents: auto")
	wantExtents(t, n, "pool", admin.Extent{Start: 2113798144, Length: 33554432})
}

// subIDs puts files of a node over those of the machine: a user kubelet, and what he has.
func subIDs(t *testing.T, n *nodetest.Node, subuid, subgid string) {
	t.Helper()
	dir := volume(t, n)
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd": string(passwd) + "kubelet:x:1234:1234::/:/bin/false\n", "subuid": subuid, "subgid": subgid,
	} {
		write(t, filepath.Join(dir, name), text, 0, 0)
		if _, err := os.Stat("/etc/" + name); err != nil {
			t.Fatal(err)
		}
		mountOn(t, n, "/etc/"+name, "--bind", filepath.Join(dir, name))
	}
}

// program puts another program in the place of one of the machine.
func program(t *testing.T, n *nodetest.Node, path, script string, mode os.FileMode) {
	t.Helper()
	file := filepath.Join(volume(t, n), filepath.Base(path))
	write(t, file, script, 0, 0)
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	mountOn(t, n, path, "--bind", file)
}

// TestExtentsOfKubeletAreThoseThatKubeletFinds on the node, by its user's subordinate ids.
func TestExtentsOfKubeletAreThoseThatKubeletFinds(t *testing.T) {
	t.Parallel()
	const getsubids = "/usr/bin/getsubids"
	all := &admin.Extent{Start: 65536, Length: 0xFFFF0000}
	defaults := &admin.Extent{Start: 2013265920, Length: 100532224}
	type given func(t *testing.T, n *nodetest.Node, line string)
	files := func(subuid, subgid string) given { // with the line for each %
		return func(t *testing.T, n *nodetest.Node, line string) {
			subIDs(t, n, strings.ReplaceAll(subuid, "%", line), strings.ReplaceAll(subgid, "%", line))
		}
	}
	for name, tc := range map[string]struct {
		given given
		want  *admin.Extent // nil for what the line has
		logs  string
	}{
		"files, through getsubids": {given: files("root:100000:65536\n%", "%")},
		"files, without getsubids": {func(t *testing.T, n *nodetest.Node, line string) {
			subIDs(t, n, "root:100000:65536\n"+line, line)
			program(t, n, getsubids, "", 0o644)
		}, nil, "kubelet itself needs getsubids"},
		"a directory service that getsubids asks": {given: func(t *testing.T, n *nodetest.Node, line string) {
			subIDs(t, n, "", "")
			program(t, n, getsubids, "#!/bin/sh\necho 0: "+strings.ReplaceAll(line, ":", " "), 0o755)
		}},
		"no user kubelet": {func(*testing.T, *nodetest.Node, string) {}, all, "there is no user kubelet"},
		"no ids":          {files("", ""), defaults, "kubelet does not start with them either"},
		"other gids":      {files("%", "kubelet:65536:65536\n"), defaults, "uids and gids"},
		"two lines":       {files("%kubelet:65536:65536\n", "%kubelet:65536:65536\n"), defaults, "more than one extent"},
	} {
		t.Run(name, func(t *testing.T) {
			n := ownNode(t, labnode.Options{NoDaemon: true})
			ids := n.Kubelet()
			tc.given(t, n, fmt.Sprintf("kubelet:%d:%d\n", ids.Start, ids.Length))
			configureExtents(t, n, "kubeletExtents: auto", "extents: "+extentList(n.Pool()))
			if err := n.Daemon.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := admin.Extent(ids)
			if tc.want != nil {
				want = *tc.want
			}
			if s := poolSegment(t, n, "kubelet"); !slices.Equal(s.Extents, []admin.Extent{want}) {
				t.Errorf("kubelet's extents are %v, want %v", s.Extents, want)
			}
			log := claimNode{Node: n}.log(t)
			if !strings.Contains(log, tc.logs) {
				t.Errorf("the log does not say %q:\n%s", tc.logs, log)
			}
			// Whatever kubelet has: what it draws is claimed, and what userns-shim draws is the pool's.
			claimed := n.RunPod(t, nodetest.Mapping(ids.Start+65536))
			if got := claimed.Range(t); got != ids.Start+65536 {
				t.Errorf("a pod that claims %d has the range %d", ids.Start+65536, got)
			}
			acquired := n.RunPod(t)
			if got := acquired.Range(t); !n.Pool().Contains(got) {
				t.Errorf("a pod without a mapping has the range %d, want one of the pool", got)
			}
			acquired.Run(t, n.Image(t, labimage.Demo)).Exec(t, "true")
		})
	}
}
