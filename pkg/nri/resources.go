package nri

import (
	"fmt"
	"maps"
	"math"

	"github.com/containerd/nri/pkg/api"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// resourcesOf converts what a client gives; what it leaves out stays unset.
func resourcesOf(r *ocispec.Resources) *api.LinuxResources {
	if r == nil {
		return nil
	}
	out := &api.LinuxResources{
		Cpu:     &api.LinuxCPU{Cpus: r.CpusetCPUs, Mems: r.CpusetMems},
		Memory:  &api.LinuxMemory{},
		Unified: maps.Clone(r.Unified),
	}
	if r.CPUShares != 0 {
		out.Cpu.Shares = api.UInt64(r.CPUShares)
	}
	if r.CPUQuota != 0 {
		out.Cpu.Quota = api.Int64(r.CPUQuota)
	}
	if r.CPUPeriod != 0 {
		out.Cpu.Period = api.UInt64(r.CPUPeriod)
	}
	if r.MemoryLimit != 0 {
		out.Memory.Limit = api.Int64(r.MemoryLimit)
	}
	if r.MemorySwap != 0 {
		out.Memory.Swap = api.Int64(r.MemorySwap)
	}
	for _, l := range r.HugepageLimits {
		out.HugepageLimits = append(out.HugepageLimits, &api.HugepageLimit{PageSize: l.PageSize, Limit: l.Limit})
	}
	if r.PidsLimit != 0 {
		out.Pids = &api.LinuxPids{Limit: r.PidsLimit}
	}
	return out
}

// plainResources converts what a plugin asks for in an update. Classes, devices and the rest of what only a
// container that is being created can get is left out, as on other runtimes.
func plainResources(r *api.LinuxResources) (ocispec.Resources, error) {
	cpu, memory := r.GetCpu(), r.GetMemory()
	shares, period := cpu.GetShares().GetValue(), cpu.GetPeriod().GetValue()
	if shares > math.MaxInt64 || period > math.MaxInt64 {
		return ocispec.Resources{}, fmt.Errorf("%w: cpu shares %d, period %d", ocispec.ErrInvalid, shares, period)
	}
	out := ocispec.Resources{
		CPUShares:   int64(shares),
		CPUQuota:    cpu.GetQuota().GetValue(),
		CPUPeriod:   int64(period),
		CpusetCPUs:  cpu.GetCpus(),
		CpusetMems:  cpu.GetMems(),
		MemoryLimit: memory.GetLimit().GetValue(),
		MemorySwap:  memory.GetSwap().GetValue(),
		PidsLimit:   r.GetPids().GetLimit(),
		Unified:     maps.Clone(r.GetUnified()),
	}
	for _, l := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, ocispec.HugepageLimit{PageSize: l.GetPageSize(), Limit: l.GetLimit()})
	}
	return out, nil
}
