package ocispec

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (c *Container) resources() (*specs.LinuxResources, error) {
	if c.Resources == nil {
		return &specs.LinuxResources{}, nil
	}
	return UpdateResources(nil, *c.Resources, c.Host)
}

// UpdateResources returns a copy of base, which may be nil, with the limits that r gives; what
// r leaves out stays. It serves UpdateContainerResources, where base is the stored
// specification's. Devices are never touched.
func UpdateResources(base *specs.LinuxResources, r Resources, h Host) (*specs.LinuxResources, error) {
	if err := r.validate(h); err != nil {
		return nil, err
	}
	var out specs.LinuxResources
	if base != nil {
		out = *base
	}
	out.CPU = updateCPU(out.CPU, r)
	out.Memory = updateMemory(out.Memory, r, h.Swap)
	if r.PidsLimit != 0 {
		out.Pids = &specs.LinuxPids{Limit: &r.PidsLimit}
	}
	if h.Hugetlb {
		out.HugepageLimits = updateHugepages(out.HugepageLimits, r.HugepageLimits)
	}
	if len(r.Unified) > 0 {
		unified := maps.Clone(out.Unified)
		if unified == nil {
			unified = make(map[string]string, len(r.Unified))
		}
		maps.Copy(unified, r.Unified)
		out.Unified = unified
	}
	return &out, nil
}

func updateCPU(base *specs.LinuxCPU, r Resources) *specs.LinuxCPU {
	var out specs.LinuxCPU
	if base != nil {
		out = *base
	}
	if r.CPUPeriod != 0 {
		period := uint64(r.CPUPeriod)
		out.Period = &period
	}
	if r.CPUQuota != 0 {
		out.Quota = &r.CPUQuota
	}
	if r.CPUShares != 0 {
		shares := uint64(r.CPUShares)
		out.Shares = &shares
	}
	if r.CpusetCPUs != "" {
		out.Cpus = r.CpusetCPUs
	}
	if r.CpusetMems != "" {
		out.Mems = r.CpusetMems
	}
	if out == (specs.LinuxCPU{}) {
		return nil
	}
	return &out
}

// updateMemory: swap counts memory and swap together, as in cgroup v1 and in the OCI
// specification for both versions. A memory limit alone forbids swap by setting both equal.
// Where swap is not accounted, no limit of it can be set, and kubelet's is left out.
func updateMemory(base *specs.LinuxMemory, r Resources, swap bool) *specs.LinuxMemory {
	var out specs.LinuxMemory
	if base != nil {
		out = *base
	}
	if r.MemoryLimit != 0 {
		out.Limit = &r.MemoryLimit
		if swap {
			out.Swap = &r.MemoryLimit
		}
	}
	if r.MemorySwap != 0 && swap {
		out.Swap = &r.MemorySwap
	}
	if out == (specs.LinuxMemory{}) {
		return nil
	}
	return &out
}

func updateHugepages(base []specs.LinuxHugepageLimit, limits []HugepageLimit) []specs.LinuxHugepageLimit {
	out := slices.Clone(base)
	for _, l := range limits {
		entry := specs.LinuxHugepageLimit{Pagesize: l.PageSize, Limit: l.Limit}
		i := slices.IndexFunc(out, func(o specs.LinuxHugepageLimit) bool { return o.Pagesize == l.PageSize })
		if i < 0 {
			out = append(out, entry)
		} else {
			out[i] = entry
		}
	}
	return out
}

var (
	// The OCI runtime makes a file name of a page size.
	pageSize = regexp.MustCompile(`^[0-9]{1,8}[KMG]B$`)
	// See "List format" in cpuset(7).
	cpusetList = regexp.MustCompile(`^[0-9,\- ]*$`)
	// A control file of cgroup v2, such as memory.max or hugetlb.2MB.max.
	unifiedKey = regexp.MustCompile(`^[A-Za-z0-9_]+(\.[A-Za-z0-9_\-]+)+$`)
)

func (r *Resources) validate(h Host) error {
	if err := r.Check(); err != nil {
		return err
	}
	if len(r.Unified) > 0 && !h.CgroupV2 {
		return unsupportedf("unified resources on cgroup v1")
	}
	return nil
}

// Check returns ErrInvalid for limits that no host could set, and nil for a nil r.
func (r *Resources) Check() error {
	if r == nil {
		return nil
	}
	if r.CPUPeriod < 0 || r.CPUShares < 0 || r.CPUQuota < -1 {
		return invalidf("cpu period %d, quota %d, shares %d", r.CPUPeriod, r.CPUQuota, r.CPUShares)
	}
	if !cpusetList.MatchString(r.CpusetCPUs) || !cpusetList.MatchString(r.CpusetMems) {
		return invalidf("cpuset cpus %q, mems %q", r.CpusetCPUs, r.CpusetMems)
	}
	if r.PidsLimit < -1 {
		return invalidf("pids limit %d", r.PidsLimit)
	}
	if err := r.validateMemory(); err != nil {
		return err
	}
	for _, l := range r.HugepageLimits {
		if !pageSize.MatchString(l.PageSize) {
			return invalidf("huge page size %q", l.PageSize)
		}
	}
	for key, value := range r.Unified {
		if !unifiedKey.MatchString(key) || strings.IndexByte(value, 0) >= 0 {
			return invalidf("unified resource %q=%q", key, value)
		}
	}
	return nil
}

func (r *Resources) validateMemory() error {
	if r.MemoryLimit < -1 || r.MemorySwap < -1 {
		return invalidf("memory limit %d, with swap %d", r.MemoryLimit, r.MemorySwap)
	}
	if r.MemorySwap > 0 && r.MemoryLimit > 0 && r.MemorySwap < r.MemoryLimit {
		return invalidf("limit of memory and swap, %d, is below that of memory, %d", r.MemorySwap, r.MemoryLimit)
	}
	return nil
}

// oomScoreAdj: see Host.RestrictOOMScoreAdj.
func (c *Container) oomScoreAdj() (*int, error) {
	if c.Resources == nil {
		return nil, nil
	}
	want := c.Resources.OOMScoreAdj
	if want < -1000 || want > 1000 {
		return nil, invalidf("oom_score_adj %d is outside -1000 to 1000", want)
	}
	adj := int(want)
	if c.Host.RestrictOOMScoreAdj {
		adj = max(adj, c.Host.OOMScoreAdj)
	}
	return &adj, nil
}
