package ocispec

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/pkg/cap"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestCapabilities(t *testing.T) {
	without := func(set []string, drop ...string) []string {
		return slices.DeleteFunc(slices.Clone(set), func(c string) bool { return slices.Contains(drop, c) })
	}
	daemon := []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}
	for name, tc := range map[string]struct {
		base func() Container
		caps Capabilities
		priv bool
		want []string
	}{
		"default":               {hostPod, Capabilities{}, false, defaultCapabilities()},
		"add":                   {hostPod, Capabilities{Add: []string{"sys_admin"}}, false, append(defaultCapabilities(), "CAP_SYS_ADMIN")},
		"add with prefix":       {hostPod, Capabilities{Add: []string{"CAP_SYS_ADMIN", "SYS_ADMIN"}}, false, append(defaultCapabilities(), "CAP_SYS_ADMIN")},
		"drop":                  {hostPod, Capabilities{Drop: []string{"KILL"}}, false, without(defaultCapabilities(), "CAP_KILL")},
		"drop wins":             {hostPod, Capabilities{Add: []string{"KILL"}, Drop: []string{"KILL"}}, false, without(defaultCapabilities(), "CAP_KILL")},
		"drop all":              {hostPod, Capabilities{Drop: []string{"ALL"}}, false, nil},
		"drop all, add one":     {hostPod, Capabilities{Drop: []string{"all"}, Add: []string{"KILL"}}, false, []string{"CAP_KILL"}},
		"add all of the daemon": {hostPod, Capabilities{Add: []string{"ALL"}}, false, daemon},
		"add all, drop one":     {hostPod, Capabilities{Add: []string{"All"}, Drop: []string{"CHOWN"}}, false, []string{"CAP_SYS_ADMIN"}},
		"add all in a userns":   {usernsPod, Capabilities{Add: []string{"ALL"}}, false, cap.Known()},
		"privileged":            {hostPod, Capabilities{Drop: []string{"ALL"}}, true, daemon},
		"privileged in userns":  {usernsPod, Capabilities{}, true, cap.Known()},
		"unknown passes":        {hostPod, Capabilities{Drop: []string{"ALL"}, Add: []string{"FUTURE"}}, false, []string{"CAP_FUTURE"}},
		"ambient is cleared":    {hostPod, Capabilities{AddAmbient: []string{"KILL"}}, false, defaultCapabilities()},
	} {
		t.Run(name, func(t *testing.T) {
			c := tc.base()
			c.Security.Capabilities, c.Security.Privileged, c.Host.Capabilities = tc.caps, tc.priv, daemon
			spec, err := Build(c)
			if err != nil {
				t.Fatal(err)
			}
			got := spec.Process.Capabilities
			for _, set := range [][]string{got.Bounding, got.Effective, got.Permitted} {
				if !slices.Equal(set, tc.want) {
					t.Errorf("got %v, want %v", set, tc.want)
				}
			}
			if got.Ambient != nil || got.Inheritable != nil {
				t.Errorf("ambient %v, inheritable %v", got.Ambient, got.Inheritable)
			}
		})
	}
}

func allows(f *specs.LinuxSeccomp, syscall string) bool {
	return f == nil || slices.ContainsFunc(f.Syscalls, func(s specs.LinuxSyscall) bool {
		return s.Action == specs.ActAllow && len(s.Args) == 0 && slices.Contains(s.Names, syscall)
	})
}

// The default filter follows the container's final capabilities.
func TestSeccompDefault(t *testing.T) {
	c := hostPod()
	c.Security.Seccomp.Type = ProfileRuntimeDefault
	spec, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	if !allows(spec.Linux.Seccomp, "read") || allows(spec.Linux.Seccomp, "mount") || len(spec.Linux.Seccomp.Architectures) == 0 {
		t.Error("filter of a container without CAP_SYS_ADMIN")
	}
	c.Security.Capabilities.Add = []string{"SYS_ADMIN"}
	if spec, err = Build(c); err != nil || !allows(spec.Linux.Seccomp, "mount") {
		t.Errorf("filter of a container with CAP_SYS_ADMIN: %v", err)
	}
}

func TestSeccompChoice(t *testing.T) {
	read := func(text string, err error) func(string) ([]byte, error) {
		return func(path string) ([]byte, error) {
			if path != "/p.json" {
				t.Errorf("read %q", path)
			}
			return []byte(text), err
		}
	}
	local := Profile{Type: ProfileLocalhost, Ref: "localhost//p.json"}
	for name, tc := range map[string]struct {
		profile  Profile
		host     Host
		priv     bool
		filtered bool
		err      error
	}{
		"unset":                   {Profile{}, Host{Seccomp: true}, false, false, nil},
		"unset, default filters":  {Profile{}, Host{Seccomp: true, SeccompUnset: Profile{Type: ProfileRuntimeDefault}}, false, true, nil},
		"unset without seccomp":   {Profile{}, Host{SeccompUnset: Profile{Type: ProfileRuntimeDefault}}, false, false, nil},
		"unconfined":              {Profile{Type: ProfileUnconfined}, Host{}, false, false, nil},
		"default without seccomp": {Profile{Type: ProfileRuntimeDefault}, Host{}, false, false, ErrUnsupported},
		"privileged":              {Profile{Type: ProfileRuntimeDefault}, Host{}, true, false, nil},
		"local":                   {local, Host{Seccomp: true, ReadProfile: read(`{"defaultAction":"SCMP_ACT_ALLOW"}`, nil)}, false, true, nil},
		"local without action":    {local, Host{Seccomp: true, ReadProfile: read(`{}`, nil)}, false, false, ErrInvalid},
		"local, no JSON":          {local, Host{Seccomp: true, ReadProfile: read(`{`, nil)}, false, false, ErrInvalid},
		"local, missing":          {local, Host{Seccomp: true, ReadProfile: read("", fs.ErrNotExist)}, false, false, fs.ErrNotExist},
		"local, nothing reads":    {local, Host{Seccomp: true}, false, false, ErrUnsupported},
		"local without path":      {Profile{Type: ProfileLocalhost}, Host{Seccomp: true}, false, false, ErrInvalid},
		"local, relative":         {Profile{Type: ProfileLocalhost, Ref: "p.json"}, Host{Seccomp: true}, false, false, ErrInvalid},
		"path for default":        {Profile{Type: ProfileRuntimeDefault, Ref: "/p"}, Host{Seccomp: true}, false, false, ErrInvalid},
		"unknown type":            {Profile{Type: "x"}, Host{Seccomp: true}, false, false, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			c := hostPod()
			c.Security.Seccomp, c.Security.Privileged, c.Host = tc.profile, tc.priv, tc.host
			spec, err := Build(c)
			if !errors.Is(err, tc.err) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if err == nil && (spec.Linux.Seccomp != nil) != tc.filtered {
				t.Errorf("filter: %v", spec.Linux.Seccomp)
			}
		})
	}
}

func TestAppArmor(t *testing.T) {
	local := Profile{Type: ProfileLocalhost, Ref: "localhost/mine"}
	with := Host{AppArmorDefault: "default", AppArmorLoaded: func(name string) (bool, error) { return name == "mine", nil }}
	for name, tc := range map[string]struct {
		profile Profile
		host    Host
		priv    bool
		want    string
		err     error
	}{
		"unset":                    {Profile{}, with, false, "default", nil},
		"unset, privileged":        {Profile{}, with, true, "", nil},
		"unset, no AppArmor":       {Profile{}, Host{}, false, "", nil},
		"default":                  {Profile{Type: ProfileRuntimeDefault}, with, false, "default", nil},
		"default, privileged":      {Profile{Type: ProfileRuntimeDefault}, with, true, "", nil},
		"default, no AppArmor":     {Profile{Type: ProfileRuntimeDefault}, Host{}, false, "", ErrUnsupported},
		"unconfined":               {Profile{Type: ProfileUnconfined}, with, false, "", nil},
		"unconfined, no AppArmor":  {Profile{Type: ProfileUnconfined}, Host{}, false, "", nil},
		"local":                    {local, with, false, "mine", nil},
		"local, privileged":        {local, with, true, "mine", nil},
		"local, no AppArmor":       {local, Host{}, false, "", ErrUnsupported},
		"local, not loaded":        {Profile{Type: ProfileLocalhost, Ref: "other"}, with, false, "", ErrUnsupported},
		"local, nothing looks":     {local, Host{AppArmorDefault: "default"}, false, "mine", nil},
		"local without a name":     {Profile{Type: ProfileLocalhost, Ref: "localhost/"}, with, false, "", ErrInvalid},
		"unconfined with a name":   {Profile{Type: ProfileUnconfined, Ref: "x"}, with, false, "", ErrInvalid},
		"no such type of profiles": {Profile{Type: "other"}, with, false, "", ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			c := hostPod()
			c.Security.AppArmor, c.Security.Privileged, c.Host = tc.profile, tc.priv, tc.host
			spec, err := Build(c)
			if !errors.Is(err, tc.err) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if err == nil && spec.Process.ApparmorProfile != tc.want {
				t.Errorf("got %q, want %q", spec.Process.ApparmorProfile, tc.want)
			}
		})
	}
}

func TestSELinuxOptions(t *testing.T) {
	got, err := SELinuxOptions(&SELinux{Role: "r", Type: "t", Level: "s0-s15:c0.c1023,c5"})
	if want := []string{"role:r", "type:t", "level:s0-s15:c0.c1023,c5"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := SELinuxOptions(nil); got != nil || err != nil {
		t.Errorf("nil: %q, %v", got, err)
	}
	for _, level := range []string{"0", "s0:c1,", "s0\n", "c1"} {
		if _, err := SELinuxOptions(&SELinux{Level: level}); !errors.Is(err, ErrInvalid) {
			t.Errorf("level %q: %v", level, err)
		}
	}
}
