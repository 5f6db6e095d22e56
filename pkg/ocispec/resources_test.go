package ocispec

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

func TestUpdateResources(t *testing.T) {
	base := &specs.LinuxResources{
		Devices:        []specs.LinuxDeviceCgroup{{Access: "rwm"}},
		CPU:            &specs.LinuxCPU{Shares: ptr(uint64(2)), Cpus: "0"},
		Memory:         &specs.LinuxMemory{Limit: ptr(int64(10)), Swap: ptr(int64(20))},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 1}, {Pagesize: "1GB", Limit: 2}},
		Unified:        map[string]string{"a.b": "1"},
	}
	host := Host{CgroupV2: true, Swap: true, Hugetlb: true}
	got, err := UpdateResources(base, Resources{
		CPUQuota: -1, MemoryLimit: 30, PidsLimit: 5,
		HugepageLimits: []HugepageLimit{{"2MB", 7}, {"64KB", 8}}, Unified: map[string]string{"c.d": "2"},
	}, host)
	if err != nil {
		t.Fatal(err)
	}
	want := &specs.LinuxResources{
		Devices: base.Devices,
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(2)), Cpus: "0", Quota: ptr(int64(-1))},
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(30)), Swap: ptr(int64(30))},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(5))},
		HugepageLimits: []specs.LinuxHugepageLimit{
			{Pagesize: "2MB", Limit: 7}, {Pagesize: "1GB", Limit: 2}, {Pagesize: "64KB", Limit: 8},
		},
		Unified: map[string]string{"a.b": "1", "c.d": "2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if *base.Memory.Limit != 10 || base.HugepageLimits[0].Limit != 1 || len(base.Unified) != 1 || base.CPU.Quota != nil {
		t.Errorf("base was changed: %+v", base)
	}
}

// Memory swap as containerd and kubelet mean it: a total, and no swapping unless asked for.
func TestSwap(t *testing.T) {
	for name, tc := range map[string]struct {
		r    Resources
		swap bool
		want *specs.LinuxMemory
	}{
		"nothing":                 {Resources{}, true, nil},
		"limit forbids swap":      {Resources{MemoryLimit: 10}, true, &specs.LinuxMemory{Limit: ptr(int64(10)), Swap: ptr(int64(10))}},
		"limit with swap":         {Resources{MemoryLimit: 10, MemorySwap: 15}, true, &specs.LinuxMemory{Limit: ptr(int64(10)), Swap: ptr(int64(15))}},
		"unlimited swap":          {Resources{MemoryLimit: 10, MemorySwap: -1}, true, &specs.LinuxMemory{Limit: ptr(int64(10)), Swap: ptr(int64(-1))}},
		"swap is not accounted":   {Resources{MemoryLimit: 10, MemorySwap: 15}, false, &specs.LinuxMemory{Limit: ptr(int64(10))}},
		"swap alone, unaccounted": {Resources{MemorySwap: 15}, false, nil},
	} {
		got, err := UpdateResources(nil, tc.r, Host{Swap: tc.swap})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, got.Memory); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestHugepagesWithoutController(t *testing.T) {
	got, err := UpdateResources(nil, Resources{HugepageLimits: []HugepageLimit{{"2MB", 0}}}, Host{})
	if err != nil || got.HugepageLimits != nil {
		t.Errorf("got %+v, %v", got.HugepageLimits, err)
	}
}

func TestOOMScoreAdj(t *testing.T) {
	for _, tc := range []struct {
		want, daemon int
		restrict     bool
		got          int
	}{
		{-998, 0, false, -998}, {-998, 0, true, 0}, {-998, -500, true, -500}, {900, 0, true, 900}, {-1000, -1000, true, -1000},
	} {
		c := hostPod()
		c.Resources = &Resources{OOMScoreAdj: int64(tc.want)}
		c.Host.RestrictOOMScoreAdj, c.Host.OOMScoreAdj = tc.restrict, tc.daemon
		spec, err := Build(c)
		if err != nil {
			t.Fatal(err)
		}
		if adj := spec.Process.OOMScoreAdj; adj == nil || *adj != tc.got {
			t.Errorf("%+v: %v", tc, adj)
		}
	}
	c := hostPod()
	c.Resources = nil
	if spec, err := Build(c); err != nil || spec.Process.OOMScoreAdj != nil {
		t.Errorf("without resources: %v", err)
	}
}

func TestCgroupsPath(t *testing.T) {
	for _, tc := range []struct {
		driver           CgroupDriver
		parent, id, want string
	}{
		{CgroupDriverCgroupfs, "/kubepods/pod1", "id", "/kubepods/pod1/id"},
		{CgroupDriverCgroupfs, "kubepods", "id", "/kubepods/id"},
		{CgroupDriverCgroupfs, "", "id", "/k8s.io/id"},
		{CgroupDriverCgroupfs, "/", "id", "/k8s.io/id"},
		{CgroupDriverSystemd, "/kubepods.slice/kubepods-pod1.slice", "id", "kubepods-pod1.slice:cri-containerd:id"},
		{CgroupDriverSystemd, "kubepods.slice", "id", "kubepods.slice:cri-containerd:id"},
		{CgroupDriverSystemd, "", "id", "system.slice:cri-containerd:id"},
	} {
		if got, err := CgroupsPath(tc.driver, tc.parent, tc.id); err != nil || got != tc.want {
			t.Errorf("%s %q %q: %q, %v, want %q", tc.driver, tc.parent, tc.id, got, err, tc.want)
		}
	}
	for _, tc := range []struct {
		driver     CgroupDriver
		parent, id string
	}{
		{CgroupDriverCgroupfs, "/kubepods/../..", "id"},
		{CgroupDriverCgroupfs, "/kubepods", ""},
		{CgroupDriverCgroupfs, "/kubepods", "../id"},
		{CgroupDriverSystemd, "/kubepods", "id"},
		{CgroupDriverSystemd, "a:b.slice", "id"},
		{CgroupDriverSystemd, "a.slice", "i:d"},
		{"", "/kubepods", "id"},
	} {
		if got, err := CgroupsPath(tc.driver, tc.parent, tc.id); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s %q %q: %q, %v", tc.driver, tc.parent, tc.id, got, err)
		}
	}
}
