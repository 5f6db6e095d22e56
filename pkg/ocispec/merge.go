package ocispec

import (
	"cmp"
	"maps"
	"slices"
)

// Merge returns r with what update gives put over it, as UpdateResources does for a
// specification. The score for the OOM killer cannot be changed and stays.
func (r Resources) Merge(update Resources) Resources {
	out := r
	out.CPUPeriod = cmp.Or(update.CPUPeriod, r.CPUPeriod)
	out.CPUQuota = cmp.Or(update.CPUQuota, r.CPUQuota)
	out.CPUShares = cmp.Or(update.CPUShares, r.CPUShares)
	out.CpusetCPUs = cmp.Or(update.CpusetCPUs, r.CpusetCPUs)
	out.CpusetMems = cmp.Or(update.CpusetMems, r.CpusetMems)
	out.MemoryLimit = cmp.Or(update.MemoryLimit, r.MemoryLimit)
	out.MemorySwap = cmp.Or(update.MemorySwap, r.MemorySwap)
	out.PidsLimit = cmp.Or(update.PidsLimit, r.PidsLimit)
	if len(update.HugepageLimits) > 0 {
		out.HugepageLimits = slices.Clone(update.HugepageLimits)
	}
	if len(update.Unified) > 0 {
		out.Unified = maps.Clone(r.Unified)
		if out.Unified == nil {
			out.Unified = map[string]string{}
		}
		maps.Copy(out.Unified, update.Unified)
	}
	return out
}
