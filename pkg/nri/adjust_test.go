package nri

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/ocispec/qosclass"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// newAdapter has no plugins and no library.
func newAdapter(host ocispec.Host) *Adapter {
	return &Adapter{
		opts:    Options{Host: host, Classes: qosclass.New(qosclass.Options{}), RequestTimeout: 2 * time.Second},
		witness: &witness{},
		told:    map[string]stage{},
	}
}

// request is a container in a pod, with a user namespace where a range is given.
func request(users *idpool.Range) container.Adjustment {
	return container.Adjustment{
		Sandbox: sandbox.Record{Range: users},
		Spec: &specs.Spec{
			Process: &specs.Process{Env: []string{"A=1", "B=2"}},
			Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/old", Type: "bind"}},
			Linux: &specs.Linux{
				Resources:  &specs.LinuxResources{},
				Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}},
				Devices:    []specs.LinuxDevice{{Path: "/dev/old"}},
			},
		},
		Volume: func(_ context.Context, v ocispec.Mount) (ocispec.Mount, error) {
			v.IDMapped = !v.Readonly
			v.HostPath = "/resolved" + v.HostPath
			return v, nil
		},
	}
}

func asked(adjust *api.ContainerAdjustment) adjustment {
	return adjustment{merged: adjust, answers: []answer{{plugin: "10-a", adjust: adjust}}}
}

// TestBindMountsAreFitted holds that a plugin's bind mount in a pod with a user namespace goes through what readies
// volumes, and that nothing else does.
func TestBindMountsAreFitted(t *testing.T) {
	mounts := func() *api.ContainerAdjustment {
		return &api.ContainerAdjustment{Mounts: []*api.Mount{
			{Destination: "/w", Type: "bind", Source: "/s", Options: []string{"rbind", "rw", "nosuid"}},
			{Destination: "/r", Type: "", Source: "/s", Options: []string{"bind", "ro"}},
			{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}},
			{Destination: "-/old"},
		}}
	}
	want := map[string]specs.Mount{
		"/proc": {Destination: "/proc", Type: "proc"},
		"/w":    {Destination: "/w", Type: "bind", Source: "/resolved/s", Options: []string{"rbind", "rprivate", "nosuid", "idmap"}},
		"/r":    {Destination: "/r", Type: "bind", Source: "/resolved/s", Options: []string{"rbind", "rprivate", "ro"}},
		"/t":    {Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}},
	}
	req := request(&idpool.Range{Start: 65536, Length: 65536})
	if err := newAdapter(ocispec.Host{}).adjust(t.Context(), req, asked(mounts())); err != nil {
		t.Fatal(err)
	}
	got := map[string]specs.Mount{}
	for _, m := range req.Spec.Mounts {
		got[m.Destination] = m
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the mounts are\n%v, want\n%v", got, want)
	}
	req = request(nil)
	if err := newAdapter(ocispec.Host{}).adjust(t.Context(), req, asked(mounts())); err != nil {
		t.Fatal(err)
	}
	for _, m := range req.Spec.Mounts {
		if strings.HasPrefix(m.Source, "/resolved") {
			t.Errorf("a mount in a pod with the host's users was changed: %v", m)
		}
	}
}

// TestAdjustEditsTheSpecification holds the single edits that the library's generator makes through specWriter.
func TestAdjustEditsTheSpecification(t *testing.T) {
	req := request(nil)
	adjust := &api.ContainerAdjustment{
		Env:   []*api.KeyValue{{Key: "A", Value: "3"}, {Key: "-B"}, {Key: "C", Value: "4"}},
		Args:  []string{"x"},
		Hooks: &api.Hooks{Prestart: []*api.Hook{{Path: "/a"}}, Poststart: []*api.Hook{{Path: "/b"}}, Poststop: []*api.Hook{{Path: "/c"}}},
		Linux: &api.LinuxContainerAdjustment{
			CgroupsPath: "/g",
			Devices:     []*api.LinuxDevice{{Path: "/dev/old", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/new", Type: "b", Major: 2, Minor: 4}},
			Namespaces:  []*api.LinuxNamespace{{Type: "pid", Path: "/p"}, {Type: "-mount"}},
			Sysctl:      map[string]string{"net.x": "1"},
			OomScoreAdj: &api.OptionalInt{Value: -900},
			Resources: &api.LinuxResources{
				Cpu:            &api.LinuxCPU{Cpus: "0", Mems: "0", Shares: api.UInt64(uint64(2)), Quota: api.Int64(int64(3)), Period: api.UInt64(uint64(4))},
				Memory:         &api.LinuxMemory{Limit: api.Int64(int64(5))},
				HugepageLimits: []*api.HugepageLimit{{PageSize: "2MB", Limit: 6}},
				Pids:           &api.LinuxPids{Limit: 7},
			},
		},
	}
	host := ocispec.Host{RestrictOOMScoreAdj: true, OOMScoreAdj: -100}
	if err := newAdapter(host).adjust(t.Context(), req, asked(adjust)); err != nil {
		t.Fatal(err)
	}
	spec := req.Spec
	if !slices.Equal(spec.Process.Env, []string{"A=3", "C=4"}) || !slices.Equal(spec.Process.Args, []string{"x"}) {
		t.Errorf("the process is %+v", spec.Process)
	}
	if got := *spec.Process.OOMScoreAdj; got != -100 {
		t.Errorf("the score is %d, want no lower than the daemon's own", got)
	}
	h := spec.Hooks
	if len(h.Prestart) != 1 || len(h.Poststart) != 1 || len(h.Poststop) != 1 { //nolint:staticcheck // plugins still use the deprecated hook
		t.Errorf("the hooks are %+v", h)
	}
	if want := []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/p"}}; !slices.Equal(spec.Linux.Namespaces, want) {
		t.Errorf("the namespaces are %v, want %v", spec.Linux.Namespaces, want)
	}
	if d := spec.Linux.Devices; len(d) != 2 || d[0].Major != 1 || d[1].Path != "/dev/new" || len(spec.Linux.Resources.Devices) != 2 {
		t.Errorf("the devices are %v with the rules %v", d, spec.Linux.Resources.Devices)
	}
	r := spec.Linux.Resources
	if r.CPU.Cpus != "0" || r.CPU.Mems != "0" || *r.CPU.Shares != 2 || *r.CPU.Quota != 3 || *r.CPU.Period != 4 || *r.Memory.Limit != 5 || *r.Pids.Limit != 7 {
		t.Errorf("the resources are %+v", r)
	}
	if r.Memory.Swap != nil || r.HugepageLimits != nil {
		t.Errorf("the host accounts neither swap nor huge pages, and gets %v and %v", r.Memory.Swap, r.HugepageLimits)
	}
	if spec.Linux.CgroupsPath != "/g" || spec.Linux.Sysctl["net.x"] != "1" {
		t.Errorf("cgroup %s, sysctls %v", spec.Linux.CgroupsPath, spec.Linux.Sysctl)
	}
}

// TestRefusalsNameThePlugin holds what is refused, and that of two plugins the one is named that asked.
func TestRefusalsNameThePlugin(t *testing.T) {
	linux := func(l *api.LinuxContainerAdjustment) *api.ContainerAdjustment {
		return &api.ContainerAdjustment{Linux: l}
	}
	users := &idpool.Range{Start: 65536, Length: 65536}
	for word, tt := range map[string]struct {
		users  *idpool.Range
		adjust *api.ContainerAdjustment
	}{
		"user namespace":   {nil, linux(&api.LinuxContainerAdjustment{Namespaces: []*api.LinuxNamespace{{Type: "user"}}})},
		"cgroup v1":        {nil, linux(&api.LinuxContainerAdjustment{Resources: &api.LinuxResources{Unified: map[string]string{"memory.max": "1"}}})},
		"block I/O class":  {nil, linux(&api.LinuxContainerAdjustment{Resources: &api.LinuxResources{BlockioClass: api.String("gold")}})},
		"RDT class":        {nil, linux(&api.LinuxContainerAdjustment{Resources: &api.LinuxResources{RdtClass: api.String("gold")}})},
		"CAP_SYS_RESOURCE": {users, &api.ContainerAdjustment{Rlimits: []*api.POSIXRlimit{{Type: "RLIMIT_CORE"}}}},
		"access times":     {users, &api.ContainerAdjustment{Mounts: []*api.Mount{{Destination: "/x", Type: "bind", Source: "/", Options: []string{"noatime"}}}}},
	} {
		t.Run(word, func(t *testing.T) {
			adj := asked(tt.adjust)
			innocent := answer{plugin: "20-b", adjust: &api.ContainerAdjustment{}}
			adj.answers = append(adj.answers, innocent)
			err := newAdapter(ocispec.Host{Capabilities: []string{}}).adjust(t.Context(), request(tt.users), adj)
			if !errors.Is(err, ErrPlugin) || !strings.Contains(err.Error(), "10-a") || !strings.Contains(err.Error(), word) {
				t.Errorf("the error is %v, want one of plugin 10-a about %s", err, word)
			}
		})
	}
}

// TestBlame holds which faults of plugins fail a request.
func TestBlame(t *testing.T) {
	a := newAdapter(ocispec.Host{})
	for name, tt := range map[string]struct {
		err    error
		faults []fault
		want   string
	}{
		"nothing":      {nil, nil, ""},
		"gone":         {nil, []fault{{"10-a", "StartContainer", ttrpc.ErrClosed}}, ""},
		"hangs":        {nil, []fault{{"10-a", "StartContainer", context.DeadlineExceeded}}, "NRI plugin 10-a: StartContainer: no answer within 2s, it is disconnected"},
		"says no":      {errors.New("no"), []fault{{"10-a", "StartContainer", errors.New("no")}}, "NRI plugin 10-a: StartContainer: no"},
		"disagreement": {errors.New("a and b"), nil, "NRI plugin: a and b"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := a.blame(tt.err, tt.faults); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("the error is %q, want %q", got, tt.want)
			}
		})
	}
}

// TestStepsAreToldOnce holds what plugins are told of one sandbox or container.
func TestStepsAreToldOnce(t *testing.T) {
	a := newAdapter(ocispec.Host{})
	for i, tt := range []struct {
		move move
		want bool
	}{
		{moveStop, false}, // of what nobody knows
		{moveEnd, false},
		{moveAlong, false},
		{moveBegin, true},
		{moveAlong, true},
		{moveStop, true},
		{moveStop, false},
		{moveAlong, false},
		{moveEnd, true},
		{moveEnd, false},
	} {
		if got := a.advance("x", tt.move); got != tt.want {
			t.Errorf("step %d: told is %t, want %t", i, got, tt.want)
		}
	}
	if len(a.told) != 0 {
		t.Errorf("something is kept of what has gone: %v", a.told)
	}
}

// TestResourcesRoundTrip holds that a request which no plugin changes comes back as it was.
func TestResourcesRoundTrip(t *testing.T) {
	want := ocispec.Resources{
		CPUPeriod: 1, CPUQuota: -1, CPUShares: 3, CpusetCPUs: "0", CpusetMems: "1", MemoryLimit: 4, MemorySwap: -1, PidsLimit: 5,
		HugepageLimits: []ocispec.HugepageLimit{{PageSize: "2MB", Limit: 6}}, Unified: map[string]string{"a.b": "c"},
	}
	got, err := plainResources(resourcesOf(&want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("resources come back as %+v, want %+v: %v", got, want, err)
	}
	if got, err := plainResources(resourcesOf(&ocispec.Resources{})); err != nil || !reflect.DeepEqual(got, ocispec.Resources{}) {
		t.Errorf("no resources come back as %+v: %v", got, err)
	}
}
