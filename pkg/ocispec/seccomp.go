package ocispec

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// localhostPrefix is how the deprecated string fields of CRI spell ProfileLocalhost; some
// clients leave it in the newer ones.
const localhostPrefix = "localhost/"

// seccomp returns the filter, nil for none. The default filter depends on the capabilities:
// CAP_SYS_ADMIN, for one, admits mount.
func (c *Container) seccomp(caps *specs.LinuxCapabilities) (*specs.LinuxSeccomp, error) {
	if c.Security.Privileged {
		return nil, nil
	}
	profile := c.Security.Seccomp
	if profile.Type == ProfileUnset && c.Host.Seccomp {
		profile = c.Host.SeccompUnset
	}
	if err := profile.validate("seccomp"); err != nil {
		return nil, err
	}
	if profile.Type == ProfileUnset || profile.Type == ProfileUnconfined {
		return nil, nil
	}
	if !c.Host.Seccomp {
		return nil, unsupportedf("seccomp profile %s: the kernel or the OCI runtime is without seccomp", profile)
	}
	if profile.Type == ProfileLocalhost {
		return c.localSeccomp(strings.TrimPrefix(profile.Ref, localhostPrefix))
	}
	return seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: caps}}), nil
}

func (c *Container) localSeccomp(path string) (*specs.LinuxSeccomp, error) {
	if err := checkPath("seccomp profile", path); err != nil {
		return nil, err
	}
	if c.Host.ReadProfile == nil {
		return nil, unsupportedf("seccomp profile %s: nothing reads profile files", path)
	}
	text, err := c.Host.ReadProfile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: read seccomp profile %s: %w", ErrInvalid, path, err)
	}
	filter := new(specs.LinuxSeccomp)
	if err := json.Unmarshal(text, filter); err != nil {
		return nil, invalidf("seccomp profile %s: %v", path, err)
	}
	// The OCI runtime takes a filter without action and rules for none at all.
	if filter.DefaultAction == "" {
		return nil, invalidf("seccomp profile %s has no defaultAction", path)
	}
	return filter, nil
}

// String names the profile as the deprecated fields of CRI do.
func (p Profile) String() string {
	if p.Type == ProfileLocalhost {
		return localhostPrefix + strings.TrimPrefix(p.Ref, localhostPrefix)
	}
	return string(p.Type)
}

func (p Profile) validate(kind string) error {
	switch p.Type {
	case ProfileUnset, ProfileRuntimeDefault, ProfileUnconfined:
		if p.Ref != "" {
			return invalidf("%s profile of type %q with a local reference %q", kind, p.Type, p.Ref)
		}
	case ProfileLocalhost:
		if strings.TrimPrefix(p.Ref, localhostPrefix) == "" {
			return invalidf("local %s profile without a reference", kind)
		}
	default:
		return invalidf("%s profile type %q", kind, p.Type)
	}
	return checkNUL(kind+" profile", p.Ref)
}
