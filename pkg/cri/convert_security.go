package cri

import (
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

func containerSecurity(sc *runtimeapi.LinuxContainerSecurityContext) (ocispec.Security, error) {
	user, err := containerUser(sc)
	if err != nil {
		return ocispec.Security{}, err
	}
	seccomp, err := profileOr("seccomp", sc.GetSeccomp(), sc.GetSeccompProfilePath()) //nolint:staticcheck // clients still send the deprecated field
	if err != nil {
		return ocispec.Security{}, err
	}
	apparmor, err := profileOr("apparmor", sc.GetApparmor(), sc.GetApparmorProfile()) //nolint:staticcheck // clients still send the deprecated field
	if err != nil {
		return ocispec.Security{}, err
	}
	caps := sc.GetCapabilities()
	return ocispec.Security{
		Privileged: sc.GetPrivileged(),
		Capabilities: ocispec.Capabilities{
			Add:        caps.GetAddCapabilities(),
			Drop:       caps.GetDropCapabilities(),
			AddAmbient: caps.GetAddAmbientCapabilities(),
		},
		User:           user,
		ReadonlyRootfs: sc.GetReadonlyRootfs(),
		NoNewPrivs:     sc.GetNoNewPrivs(),
		MaskedPaths:    sc.GetMaskedPaths(),
		ReadonlyPaths:  sc.GetReadonlyPaths(),
		Seccomp:        seccomp,
		AppArmor:       apparmor,
		SELinux:        selinux(sc.GetSelinuxOptions()),
	}, nil
}

func containerUser(sc *runtimeapi.LinuxContainerSecurityContext) (ocispec.User, error) {
	if sc.GetRunAsUser() != nil && sc.GetRunAsUsername() != "" {
		return ocispec.User{}, invalid("run_as_user and run_as_username exclude each other")
	}
	if sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil && sc.GetRunAsUsername() == "" {
		return ocispec.User{}, invalid("run_as_group needs run_as_user or run_as_username")
	}
	user := ocispec.User{Name: sc.GetRunAsUsername(), SupplementalGroups: sc.GetSupplementalGroups()}
	if v := sc.GetRunAsUser(); v != nil {
		user.UID = &v.Value
	}
	if v := sc.GetRunAsGroup(); v != nil {
		user.GID = &v.Value
	}
	switch sc.GetSupplementalGroupsPolicy() {
	case runtimeapi.SupplementalGroupsPolicy_Merge:
	case runtimeapi.SupplementalGroupsPolicy_Strict:
		user.GroupsPolicy = ocispec.GroupsStrict
	default:
		return ocispec.User{}, invalid("supplemental_groups_policy is %s", sc.GetSupplementalGroupsPolicy())
	}
	return user, nil
}

// profile converts the security profile in a field of that name.
func profile(field string, p *runtimeapi.SecurityProfile) (ocispec.Profile, error) {
	switch {
	case p == nil:
		return ocispec.Profile{}, nil
	case p.GetProfileType() == runtimeapi.SecurityProfile_RuntimeDefault:
		return ocispec.Profile{Type: ocispec.ProfileRuntimeDefault}, nil
	case p.GetProfileType() == runtimeapi.SecurityProfile_Localhost:
		return ocispec.Profile{Type: ocispec.ProfileLocalhost, Ref: strings.TrimPrefix(p.GetLocalhostRef(), localhostPrefix)}, nil
	case p.GetProfileType() == runtimeapi.SecurityProfile_Unconfined:
		return ocispec.Profile{Type: ocispec.ProfileUnconfined}, nil
	}
	return ocispec.Profile{}, invalid("%s.profile_type is %s", field, p.GetProfileType())
}

// localhostPrefix stands before a profile's name in the deprecated string fields.
const localhostPrefix = "localhost/"

// profileOr reads the deprecated string field where a client does not fill in the message.
func profileOr(field string, p *runtimeapi.SecurityProfile, deprecated string) (ocispec.Profile, error) {
	if p != nil || deprecated == "" {
		return profile(field, p)
	}
	switch ref, local := strings.CutPrefix(deprecated, localhostPrefix); {
	case local:
		return ocispec.Profile{Type: ocispec.ProfileLocalhost, Ref: ref}, nil
	case deprecated == "runtime/default", deprecated == "docker/default":
		return ocispec.Profile{Type: ocispec.ProfileRuntimeDefault}, nil
	case deprecated == "unconfined":
		return ocispec.Profile{Type: ocispec.ProfileUnconfined}, nil
	}
	return ocispec.Profile{}, invalid("the %s profile is %q: want runtime/default, unconfined or %s and a name", field, deprecated, localhostPrefix)
}

func selinux(o *runtimeapi.SELinuxOption) *ocispec.SELinux {
	if o == nil {
		return nil
	}
	return &ocispec.SELinux{User: o.GetUser(), Role: o.GetRole(), Type: o.GetType(), Level: o.GetLevel()}
}

func resources(r *runtimeapi.LinuxContainerResources) *ocispec.Resources {
	if r == nil {
		return nil
	}
	out := &ocispec.Resources{
		CPUPeriod:   r.GetCpuPeriod(),
		CPUQuota:    r.GetCpuQuota(),
		CPUShares:   r.GetCpuShares(),
		CpusetCPUs:  r.GetCpusetCpus(),
		CpusetMems:  r.GetCpusetMems(),
		MemoryLimit: r.GetMemoryLimitInBytes(),
		MemorySwap:  r.GetMemorySwapLimitInBytes(),
		OOMScoreAdj: r.GetOomScoreAdj(),
		Unified:     r.GetUnified(),
	}
	for _, l := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, ocispec.HugepageLimit{PageSize: l.GetPageSize(), Limit: l.GetLimit()})
	}
	return out
}

// resourcesOf is the inverse of resources.
func resourcesOf(r *ocispec.Resources) *runtimeapi.LinuxContainerResources {
	if r == nil {
		return nil
	}
	out := &runtimeapi.LinuxContainerResources{
		CpuPeriod:              r.CPUPeriod,
		CpuQuota:               r.CPUQuota,
		CpuShares:              r.CPUShares,
		CpusetCpus:             r.CpusetCPUs,
		CpusetMems:             r.CpusetMems,
		MemoryLimitInBytes:     r.MemoryLimit,
		MemorySwapLimitInBytes: r.MemorySwap,
		OomScoreAdj:            r.OOMScoreAdj,
		Unified:                r.Unified,
	}
	for _, l := range r.HugepageLimits {
		out.HugepageLimits = append(out.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: l.PageSize, Limit: l.Limit})
	}
	return out
}
