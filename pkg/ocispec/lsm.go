package ocispec

import (
	"fmt"
	"regexp"
	"strings"
)

// appArmor returns the name of the profile, empty for none. Where the host has no AppArmor,
// only a client that asks for a profile gets an error. A privileged container is confined by
// no default, but by a local profile that is asked for.
func (c *Container) appArmor() (string, error) {
	profile := c.Security.AppArmor
	if err := profile.validate("AppArmor"); err != nil {
		return "", err
	}
	if profile.Type == ProfileUnconfined {
		return "", nil
	}
	if c.Host.AppArmorDefault == "" {
		if profile.Type == ProfileUnset {
			return "", nil
		}
		return "", unsupportedf("AppArmor profile %s: the host is without AppArmor", profile)
	}
	if profile.Type == ProfileLocalhost {
		return c.localAppArmor(strings.TrimPrefix(profile.Ref, localhostPrefix))
	}
	if c.Security.Privileged {
		return "", nil
	}
	return c.Host.AppArmorDefault, nil
}

func (c *Container) localAppArmor(name string) (string, error) {
	if c.Host.AppArmorLoaded == nil {
		return name, nil
	}
	loaded, err := c.Host.AppArmorLoaded(name)
	if err != nil {
		return "", fmt.Errorf("look up AppArmor profile %s: %w", name, err)
	}
	if !loaded {
		return "", unsupportedf("AppArmor profile %s is not loaded", name)
	}
	return name, nil
}

var selinuxLevel = regexp.MustCompile(`^s\d+(-s\d+)?(:c\d{1,4}(\.c\d{1,4})?(,c\d{1,4}(\.c\d{1,4})?)*)?$`)

// SELinuxOptions returns s in the form that selinux/go-selinux/label.InitLabels takes. A host
// without SELinux ignores them, as every runtime does: charts name a type on all nodes alike.
func SELinuxOptions(s *SELinux) ([]string, error) {
	if s == nil {
		return nil, nil
	}
	if s.Level != "" && !selinuxLevel.MatchString(s.Level) {
		return nil, invalidf("SELinux level %q", s.Level)
	}
	var options []string
	for _, o := range []struct{ key, value string }{
		{"user", s.User}, {"role", s.Role}, {"type", s.Type}, {"level", s.Level},
	} {
		if o.value != "" {
			options = append(options, o.key+":"+o.value)
		}
	}
	return options, nil
}
