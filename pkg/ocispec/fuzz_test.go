package ocispec

import (
	"encoding/json"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"
)

func FuzzResolveUser(f *testing.F) {
	f.Add(testPasswd, testGroup, "alice:staff", "", int64(0), int64(7), false)
	f.Add("x:x:0x1:1e9:::\n:::\n", "a:b:c:d,e,,\n", "x", "root", int64(-1), int64(1<<40), true)
	f.Add("", "", ":", "", int64(1<<62), int64(-1<<63), true)
	f.Fuzz(func(t *testing.T, passwd, group, image, name string, uid, gid int64, numbers bool) {
		u := User{Name: name, SupplementalGroups: []int64{gid}}
		if numbers {
			u.UID, u.GID = &uid, &gid
		}
		got, err := ResolveUser(texts(passwd, group), image, u)
		if err != nil {
			return
		}
		if got.UID > maxID || got.GID > maxID || !slices.Contains(got.AdditionalGids, got.GID) ||
			!slices.IsSorted(got.AdditionalGids) || got.AdditionalGids[len(got.AdditionalGids)-1] > maxID {
			t.Errorf("resolved to %+v", got)
		}
		if name != "" && !strings.Contains(passwd, name) && strings.ContainsFunc(name, func(r rune) bool { return r < '+' || r > '9' }) {
			t.Errorf("user %q is not in the image, but was found as %+v", name, got)
		}
	})
}

// FuzzBuild takes the plain forms of a request, as they are stored and as NRI could change them.
func FuzzBuild(f *testing.F) {
	add := func(c Container, arg, env string) {
		var parts [3]string
		for i, v := range []any{c.Security, c.Mounts, c.Resources} {
			text, err := json.Marshal(v)
			if err != nil {
				f.Fatal(err)
			}
			parts[i] = string(text)
		}
		f.Add(parts[0], parts[1], parts[2], arg, env, c.User.UID, uint8(0))
	}
	for _, tc := range goldenCases {
		c := tc.base()
		if tc.edit != nil {
			tc.edit(&c)
		}
		add(c, "arg", "KEY")
	}
	f.Add(`{"capabilities":{"add":["\u0000"]}}`, `[{"hostPath":"/","containerPath":"//.."}]`, `{"cpuPeriod":-1}`, "\x00", "=", uint32(1<<31), uint8(255))
	f.Fuzz(func(t *testing.T, security, mounts, resources, arg, env string, uid uint32, bits uint8) {
		c := hostPod()
		if bits&1 != 0 {
			c = usernsPod()
		}
		c.Security, c.Mounts, c.Resources = Security{}, nil, new(Resources)
		for text, into := range map[string]any{security: &c.Security, mounts: &c.Mounts, resources: c.Resources} {
			if json.Unmarshal([]byte(text), into) != nil {
				return
			}
		}
		c.Process.Args, c.Process.Env, c.User.UID = []string{arg}, []KeyValue{{env, arg}}, uid
		c.Host.CgroupV2, c.Host.Seccomp, c.Process.TTY = bits&2 != 0, bits&4 != 0, bits&8 != 0
		checkBuilt(t, c)
	})
}

func checkBuilt(t *testing.T, c Container) {
	spec, err := Build(c)
	if err != nil {
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrIDNotMapped) {
			t.Errorf("error of no known kind: %v", err)
		}
		return
	}
	if _, err := json.Marshal(spec); err != nil {
		t.Errorf("specification cannot be written: %v", err)
	}
	for i, m := range spec.Mounts {
		if !path.IsAbs(m.Destination) || strings.Contains(m.Destination+m.Source, "\x00") {
			t.Errorf("mount %+v", m)
		}
		for _, later := range spec.Mounts[i+1:] {
			if m.Type == "bind" && later.Type == "bind" && strings.HasPrefix(m.Destination, later.Destination+"/") {
				t.Errorf("mount at %s hides that at %s", later.Destination, m.Destination)
			}
		}
	}
	if c.Mapping != nil && slices.ContainsFunc(c.Mounts, func(m Mount) bool { return m.Propagation == PropagationBidirectional }) {
		t.Error("bidirectional propagation in a user namespace")
	}
	if spec.Annotations[AnnotationSandboxID] != c.Identity.SandboxID {
		t.Errorf("sandbox id %q", spec.Annotations[AnnotationSandboxID])
	}
}
