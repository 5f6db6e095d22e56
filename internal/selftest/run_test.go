package selftest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/selftest/inside"
)

func mustRun(t *testing.T, opts Options) Report {
	t.Helper()
	r, err := Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// outcome lists the names of checks that failed and of those that were skipped.
func outcome(r Report) (failed, skipped []string) {
	for _, c := range r.Checks {
		switch {
		case c.Failed():
			failed = append(failed, c.Name)
		case c.Skipped:
			skipped = append(skipped, c.Name)
		}
	}
	return failed, skipped
}

func TestHealthyNodePasses(t *testing.T) {
	node := newFakeNode()
	r := mustRun(t, node.serve(t))
	if failed, skipped := outcome(r); len(failed)+len(skipped) > 0 || !r.OK {
		t.Errorf("failed are %v, skipped %v, ok is %t: want none, none, true\n%+v", failed, skipped, r.OK, r.Checks)
	}
	if r.Runtime != "fake" || r.Version != "v1" {
		t.Errorf("the report is of %q %q, want fake v1", r.Runtime, r.Version)
	}
	if len(node.pods)+len(node.images) > 0 || slices.Contains(node.removed, "others") {
		t.Errorf("left are pods %v and images %v; removed were %v", node.pods, node.images, node.removed)
	}
	for _, req := range node.asked {
		if users := usersOf(req.GetConfig()); users.GetMode() != runtimeapi.NamespaceMode_POD || len(users.GetUids()) > 0 {
			t.Errorf("a pod was asked for with %v, want mode POD and no mapping", users)
		}
	}
}

// breakage is one way in which a node can be wrong.
type breakage struct {
	breaks func(*fakeNode)
	failed []string // all checks that fail then
}

// second is a change of what the second pod's container tells.
func second(change func(*inside.Facts)) func(*fakeNode) {
	return func(n *fakeNode) {
		n.facts = func(number int, facts *inside.Facts) {
			if number == 2 {
				change(facts)
			}
		}
	}
}

func refusing(method string) func(*fakeNode) {
	return func(n *fakeNode) {
		n.before = func(m string) error {
			if m == method {
				return errors.New("refused")
			}
			return nil
		}
	}
}

// breakages has each check fail at least once.
var breakages = map[string]breakage{
	"runtime does not answer": {func(n *fakeNode) { n.version = errors.New("down") }, []string{"version"}},
	"no status":               {refusing("Status"), []string{"runtime-ready", "network-ready"}},
	"runtime not ready":       {func(n *fakeNode) { n.status.Status.Conditions[0].Status = false }, []string{"runtime-ready"}},
	"no network, and no hostNetwork with a user namespace": {func(n *fakeNode) {
		n.status.Status.Conditions = n.status.Status.Conditions[:1]
		n.status.Features = nil
	}, []string{"network-ready"}},
	"handler without user namespaces": {func(n *fakeNode) {
		n.status.RuntimeHandlers[0].Features.UserNamespaces = false
	}, []string{"handler-userns"}},
	"no such handler":     {func(n *fakeNode) { n.status.RuntimeHandlers = n.status.RuntimeHandlers[1:] }, []string{"handler-userns"}},
	"image not pulled":    {refusing("PullImage"), []string{"image"}},
	"no pod":              {refusing("RunPodSandbox"), []string{"pod1-runs"}},
	"no container":        {refusing("CreateContainer"), []string{"pod1-runs"}},
	"container not ready": {refusing("StartContainer"), []string{"pod1-runs"}},
	"no second pod": {func(n *fakeNode) {
		n.before = func(method string) error {
			if method == "RunPodSandbox" && len(n.asked) > 1 {
				return errors.New("refused")
			}
			return nil
		}
	}, []string{"pod2-runs"}},
	"no status of pods": {refusing("PodSandboxStatus"), []string{"pod1-reported", "pod1-network", "pod2-reported", "pod2-network"}},
	"status without the mapping": {func(n *fakeNode) {
		n.report = func(_ int, status *runtimeapi.PodSandboxStatus) { status.Linux = nil }
	}, []string{"pod1-reported", "pod2-reported"}},
	"host's user namespace": {second(func(f *inside.Facts) {
		f.UIDMap, f.GIDMap = "0 0 4294967295", "0 0 4294967295"
	}), []string{"pod2-reported", "pod2-uid-map", "pod2-gid-map"}},
	"gid map of another length": {second(func(f *inside.Facts) { f.GIDMap = "0 2113929216 1000" }), []string{"pod2-reported", "pod2-gid-map"}},
	"uid map of two lines":      {second(func(f *inside.Facts) { f.UIDMap += "; 65536 1 1" }), []string{"pod2-reported", "pod2-uid-map"}},
	"ids of the host's users": {func(n *fakeNode) {
		second(func(f *inside.Facts) { f.UIDMap, f.GIDMap = "0 1000 65536", "0 1000 65536" })(n)
		n.report = func(number int, status *runtimeapi.PodSandboxStatus) {
			if number == 2 {
				users := status.Linux.Namespaces.Options.UsernsOptions
				users.Uids[0].HostId = 1000
			}
		}
	}, []string{"pod2-uid-map", "pod2-gid-map", "pod2-file-on-host"}},
	"one range for both": {func(n *fakeNode) {
		first := uint32(firstID + idsPerPod)
		second(func(f *inside.Facts) { f.UIDMap = fmt.Sprintf("0 %d 65536", first+idsPerPod-1); f.GIDMap = f.UIDMap })(n)
		n.report = func(number int, status *runtimeapi.PodSandboxStatus) {
			if number == 2 {
				status.Linux.Namespaces.Options.UsernsOptions.Uids[0].HostId = first + idsPerPod - 1
			}
		}
	}, []string{"pod2-file-on-host", "ranges-disjoint"}},
	"setgroups denied":    {second(func(f *inside.Facts) { f.SetGroups = "deny" }), []string{"pod2-setgroups"}},
	"not root":            {second(func(f *inside.Facts) { f.ID = inside.Owner{UID: 1000} }), []string{"pod2-id"}},
	"root not idmapped":   {second(func(f *inside.Facts) { f.Root = inside.Owner{UID: 65534, GID: 65534} }), []string{"pod2-root-owner"}},
	"layers not idmapped": {second(func(f *inside.Facts) { f.Witness.Owner.GID = 65534 }), []string{"pod2-image-owner"}},
	"no file made":        {second(func(f *inside.Facts) { f.Made.Error = "read-only" }), []string{"pod2-file-inside"}},
	"file of another":     {second(func(f *inside.Facts) { f.Made.Value.UID = 65534 }), []string{"pod2-file-inside"}},
	"file of the host":    {func(n *fakeNode) { n.fileOwner.GID = 1 }, []string{"pod1-file-on-host", "pod2-file-on-host"}},
	"no host name":        {second(func(f *inside.Facts) { f.Hostname.Error = "EPERM" }), []string{"pod2-hostname"}},
	"no tmpfs":            {second(func(f *inside.Facts) { f.Tmpfs.Error = "EPERM" }), []string{"pod2-tmpfs"}},
	"loopback only":       {second(func(f *inside.Facts) { f.Interfaces = []string{"lo"} }), []string{"pod2-network"}},
	"no address": {func(n *fakeNode) {
		n.report = func(_ int, status *runtimeapi.PodSandboxStatus) { status.Network = nil }
	}, []string{"pod1-network", "pod2-network"}},
	"layer chowned":           {func(n *fakeNode) { n.layer.Owner = inside.Owner{UID: firstID, GID: firstID} }, []string{"layer-on-disk"}},
	"layers unreadable":       {func(n *fakeNode) { n.layerErr = errors.New("EIO") }, []string{"layer-on-disk"}},
	"processes seen":          {func(n *fakeNode) { n.facts = seeEachOther(n) }, []string{"processes-hidden"}},
	"signal arrives":          {second(func(f *inside.Facts) { f.Signal.Error = "" }), []string{"signal-refused"}},
	"signal not tried":        {second(func(f *inside.Facts) { f.Signal.Error = "kill: not found" }), []string{"signal-refused"}},
	"pods stay":               {func(n *fakeNode) { n.keepPods = true }, []string{"cleanup"}},
	"pods are not stopped":    {refusing("StopPodSandbox"), []string{"cleanup"}},
	"pods are not listed":     {refusing("ListPodSandbox"), []string{"cleanup"}},
	"image stays":             {func(n *fakeNode) { n.keepImages = true }, []string{"cleanup"}},
	"container tells nothing": {refusing("ExecSync"), append(insideOf("pod1"), insideOf("pod2")...)},
}

// insideOf names the checks that need a container's own view.
func insideOf(pod string) []string {
	names := []string{pod + "-reported"}
	for _, name := range []string{
		"uid-map", "gid-map", "setgroups", "id", "root-owner", "image-owner", "file-inside",
		"file-on-host", "hostname", "tmpfs", "network",
	} {
		names = append(names, pod+"-"+name)
	}
	return names
}

func seeEachOther(n *fakeNode) func(int, *inside.Facts) {
	return func(_ int, facts *inside.Facts) {
		for _, pod := range n.pods {
			facts.Processes = append(facts.Processes, strings.Join(pod.container.GetCommand(), " "))
		}
	}
}

func TestEachBreakageIsFound(t *testing.T) {
	found := map[string]bool{}
	for name, b := range breakages {
		t.Run(name, func(t *testing.T) {
			node := newFakeNode()
			b.breaks(node)
			r := mustRun(t, node.serve(t))
			failed, _ := outcome(r)
			if !slices.Equal(failed, b.failed) || r.OK {
				t.Errorf("failed are %v, ok is %t: want %v and false", failed, r.OK, b.failed)
			}
			for _, c := range r.Checks {
				if c.Failed() && (c.Got == "" || c.Want == "" || c.Got == c.Want || c.Detail == "") {
					t.Errorf("a failure without all of got, want and detail, or with got like want: %+v", c)
				}
				if c.Skipped && c.Detail == "" {
					t.Errorf("%s is skipped without a reason", c.Name)
				}
			}
			if !node.keepPods && name != "pods are not listed" && len(node.pods) > 0 {
				t.Errorf("left are the pods %v", node.pods)
			}
		})
		for _, check := range b.failed {
			found[check] = true
		}
	}
	for _, name := range Names() {
		if !found[name] {
			t.Errorf("no breakage makes %s fail", name)
		}
	}
}

// TestRuntimeThatWantsMappingsGetsThem is with one that refuses a pod without, as containerd does, and with one that
// runs it in the host's user namespace, as CRI-O does.
func TestRuntimeThatWantsMappingsGetsThem(t *testing.T) {
	for name, breaks := range map[string]func(*fakeNode){
		"refuses": func(n *fakeNode) { n.wantsMapping = true },
		"ignores": func(n *fakeNode) {
			n.report = func(number int, status *runtimeapi.PodSandboxStatus) {
				if pod := n.pods[fmt.Sprintf("pod%d", number)]; len(usersOf(pod.config).GetUids()) == 0 {
					status.Linux = nil
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			node := newFakeNode()
			breaks(node)
			opts := node.serve(t)
			// Three ranges, of which one is in use.
			opts.IDs = Extent{Start: 1 << 24, Length: 3 * idsPerPod}
			node.mapped = []Extent{{Start: 1<<24 + idsPerPod + 5, Length: 1}}
			r := mustRun(t, opts)
			if failed, skipped := outcome(r); len(failed)+len(skipped) > 0 {
				t.Errorf("failed are %v, skipped %v: want none", failed, skipped)
			}
			var sent []uint32
			for _, req := range node.asked {
				if uids := usersOf(req.GetConfig()).GetUids(); len(uids) == 1 {
					sent = append(sent, uids[0].GetHostId())
				}
			}
			slices.Sort(sent)
			if want := []uint32{1 << 24, 1<<24 + 2*idsPerPod}; !slices.Equal(sent, want) {
				t.Errorf("sent were mappings from %v, want the free ranges from %v", sent, want)
			}
			if len(node.pods) > 0 {
				t.Errorf("left are the pods %v", node.pods)
			}
		})
	}
}

func TestWhatCannotBeSeenIsSkipped(t *testing.T) {
	node := newFakeNode()
	node.pid, node.layerErr = ErrNotSeen, ErrNotSeen
	r := mustRun(t, node.serve(t))
	failed, skipped := outcome(r)
	want := []string{"pod1-file-on-host", "pod2-file-on-host", "signal-refused", "layer-on-disk"}
	if len(failed) > 0 || !slices.Equal(skipped, want) || !r.OK {
		t.Errorf("failed are %v, skipped %v, ok is %t: want none, %v, true", failed, skipped, r.OK, want)
	}
}

// TestNodeWithoutNetworkRunsHostNetworkPods is a node before its network plugin is installed.
func TestNodeWithoutNetworkRunsHostNetworkPods(t *testing.T) {
	node := newFakeNode()
	node.status.Status.Conditions[1].Status = false
	r := mustRun(t, node.serve(t))
	failed, skipped := outcome(r)
	want := []string{"pod1-hostname", "pod1-network", "pod2-hostname", "pod2-network"}
	if !slices.Equal(failed, []string{"network-ready"}) || !slices.Equal(skipped, want) {
		t.Errorf("failed are %v, skipped %v: want network-ready, %v", failed, skipped, want)
	}
	for _, req := range node.asked {
		if mode := req.GetConfig().GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork(); mode != runtimeapi.NamespaceMode_NODE {
			t.Errorf("a pod was asked for with the network mode %s", mode)
		}
	}
}

// TestInterruptCleansUp interrupts within each call that makes something.
func TestInterruptCleansUp(t *testing.T) {
	for _, method := range []string{"PullImage", "RunPodSandbox", "CreateContainer", "StartContainer", "ExecSync"} {
		t.Run(method, func(t *testing.T) {
			node := newFakeNode()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			node.before = func(m string) error {
				if m == method {
					cancel()
				}
				return nil
			}
			r, err := Run(ctx, node.serve(t))
			if err != nil {
				t.Fatal(err)
			}
			if len(node.pods)+len(node.images) > 0 {
				t.Errorf("left are pods %v and images %v", node.pods, node.images)
			}
			failed, _ := outcome(r)
			if len(failed) == 0 || slices.Contains(failed, "cleanup") {
				t.Errorf("failed are %v, want some, and not cleanup", failed)
			}
		})
	}
}

func TestImageThatWasThereStays(t *testing.T) {
	node := newFakeNode()
	opts := node.serve(t)
	node.images[opts.Image] = true
	node.before = func(method string) error {
		if method == "PullImage" {
			t.Error("an image that is there was pulled")
		}
		return nil
	}
	if r := mustRun(t, opts); !r.OK {
		t.Errorf("the report is not ok: %+v", r.Checks)
	}
	if !node.images[opts.Image] {
		t.Error("an image that was there before was removed")
	}
}

func TestBadOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"relative endpoint": func(o *Options) { o.Endpoint = "cri.sock" },
		"endpoint over TCP": func(o *Options) { o.Endpoint = "tcp://127.0.0.1:1" },
		"image endpoint":    func(o *Options) { o.ImageEndpoint = "x" },
		"ids for one pod":   func(o *Options) { o.IDs.Length = idsPerPod },
		"ids of the host":   func(o *Options) { o.IDs.Start = 65535 },
		"ids that reach -1": func(o *Options) { o.IDs = Extent{Start: 1<<32 - 2*idsPerPod, Length: 2 * idsPerPod} },
		"no time":           func(o *Options) { o.Timeout = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			opts := newFakeNode().serve(t)
			change(&opts)
			if r, err := Run(t.Context(), opts); err == nil {
				t.Errorf("Run takes it and reports %+v", r)
			}
		})
	}
}
