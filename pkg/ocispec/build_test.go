package ocispec

import (
	"errors"
	"strings"
	"testing"
)

func TestBuildRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		base func() Container
		edit func(*Container)
		want error
		text string // what the message has to name
	}{
		"no id":           {hostPod, func(c *Container) { c.ID = "" }, ErrInvalid, "id"},
		"id with a slash": {hostPod, func(c *Container) { c.ID = "../x" }, ErrInvalid, "../x"},
		"no sandbox":      {hostPod, func(c *Container) { c.Identity.SandboxID = "" }, ErrInvalid, "sandbox"},
		"relative root":   {hostPod, func(c *Container) { c.RootPath = "rootfs" }, ErrInvalid, "rootfs"},
		"no command":      {hostPod, func(c *Container) { c.Process.Image.Entrypoint, c.Process.Image.Cmd = nil, nil }, ErrNoCommand, "command"},
		"empty program":   {hostPod, func(c *Container) { c.Process.Command = []string{"", "x"} }, ErrInvalid, "command"},
		"NUL in argument": {hostPod, func(c *Container) { c.Process.Args = []string{"a\x00b"} }, ErrInvalid, "argument"},
		"relative cwd":    {hostPod, func(c *Container) { c.Process.WorkingDir = "srv" }, ErrInvalid, "srv"},
		"variable name":   {hostPod, func(c *Container) { c.Process.Env = []KeyValue{{"A=B", "c"}} }, ErrInvalid, "A=B"},
		"NUL in variable": {hostPod, func(c *Container) { c.Process.Env = []KeyValue{{"A", "\x00"}} }, ErrInvalid, "variable"},

		"mapping without path": {usernsPod, func(c *Container) { c.Namespaces.User = "" }, ErrInvalid, "user namespace"},
		"path without mapping": {usernsPod, func(c *Container) { c.Mapping = nil }, ErrInvalid, "user namespace"},
		"uid not mapped":       {usernsPod, func(c *Container) { c.User.UID = 65536 }, ErrIDNotMapped, "65536"},
		"gid not mapped":       {usernsPod, func(c *Container) { c.User.GID = 70000 }, ErrIDNotMapped, "70000"},
		"group not mapped":     {usernsPod, func(c *Container) { c.User.AdditionalGids = []uint32{1, 80000} }, ErrIDNotMapped, "80000"},
		"host pid in a userns": {usernsPod, func(c *Container) { c.Namespaces.PID.Host = true }, ErrUnsupported, "PID"},
		"host ipc in a userns": {usernsPod, func(c *Container) { c.Namespaces.IPC = Namespace{Host: true} }, ErrUnsupported, "IPC"},
		"no network":           {hostPod, func(c *Container) { c.Namespaces.Network = Namespace{} }, ErrInvalid, "network"},
		"two networks":         {hostPod, func(c *Container) { c.Namespaces.Network.Host = true }, ErrInvalid, "network"},
		"relative namespace":   {hostPod, func(c *Container) { c.Namespaces.UTS.Path = "uts" }, ErrInvalid, "uts"},

		"relative mount":      {hostPod, mount(Mount{HostPath: "/a", ContainerPath: "a"}), ErrInvalid, `"a"`},
		"relative source":     {hostPod, mount(Mount{HostPath: "a", ContainerPath: "/b"}), ErrInvalid, "/b"},
		"empty source":        {hostPod, mount(Mount{ContainerPath: "/b"}), ErrInvalid, "/b"},
		"mount over the root": {hostPod, mount(Mount{HostPath: "/a", ContainerPath: "/x/.."}), ErrInvalid, "root"},
		"NUL in mount":        {hostPod, mount(Mount{HostPath: "/a\x00", ContainerPath: "/b"}), ErrInvalid, "NUL"},
		"bidirectional in a userns": {usernsPod, mount(Mount{
			HostPath: "/a", ContainerPath: "/b", Propagation: PropagationBidirectional,
		}), ErrUnsupported, "/a at /b"},
		"unknown propagation":  {hostPod, mount(Mount{HostPath: "/a", ContainerPath: "/b", Propagation: "shared"}), ErrInvalid, "shared"},
		"idmap without userns": {hostPod, mount(Mount{HostPath: "/a", ContainerPath: "/b", IDMapped: true}), ErrInvalid, "user namespace"},
		"rro without ro":       {hostPod, mount(Mount{HostPath: "/a", ContainerPath: "/b", RecursiveReadOnly: true}), ErrInvalid, "/b"},
		"rro with propagation": {hostPod, mount(Mount{
			HostPath: "/a", ContainerPath: "/b", Readonly: true, RecursiveReadOnly: true, Propagation: PropagationHostToContainer,
		}), ErrInvalid, "rslave"},
		"rro without support": {hostPod, func(c *Container) {
			c.Host.RecursiveReadOnly = false
			mount(Mount{HostPath: "/a", ContainerPath: "/b", Readonly: true, RecursiveReadOnly: true})(c)
		}, ErrRROUnsupported, "/a"},
		"option with a field": {hostPod, mount(Mount{HostPath: "/a", ContainerPath: "/b", Options: []string{"rw"}}), ErrInvalid, "rw"},
		"option idmap":        {hostPod, mount(Mount{HostPath: "/a", ContainerPath: "/b", Options: []string{"idmap"}}), ErrInvalid, "idmap"},
		"filesystem's option": {hostPod, mount(Mount{HostPath: "/a", ContainerPath: "/b", Options: []string{"uid=0"}}), ErrInvalid, "uid=0"},

		"capability":          {hostPod, func(c *Container) { c.Security.Capabilities.Add = []string{"NET ADMIN"} }, ErrInvalid, "NET ADMIN"},
		"empty capability":    {hostPod, func(c *Container) { c.Security.Capabilities.Drop = []string{""} }, ErrInvalid, "capability"},
		"relative masked":     {hostPod, func(c *Container) { c.Security.MaskedPaths = []string{"proc"} }, ErrInvalid, "proc"},
		"relative read-only":  {hostPod, func(c *Container) { c.Security.ReadonlyPaths = []string{""} }, ErrInvalid, "read-only"},
		"oom score too high":  {hostPod, func(c *Container) { c.Resources.OOMScoreAdj = 1001 }, ErrInvalid, "1001"},
		"negative cpu shares": {hostPod, func(c *Container) { c.Resources.CPUShares = -1 }, ErrInvalid, "shares"},
		"memory below -1":     {hostPod, func(c *Container) { c.Resources.MemoryLimit = -2 }, ErrInvalid, "-2"},
		"swap below memory": {hostPod, func(c *Container) {
			c.Resources.MemoryLimit, c.Resources.MemorySwap = 10, 5
		}, ErrInvalid, "swap"},
		"cpuset":        {hostPod, func(c *Container) { c.Resources.CpusetCPUs = "0\n1" }, ErrInvalid, "cpuset"},
		"page size":     {hostPod, func(c *Container) { c.Resources.HugepageLimits = []HugepageLimit{{"../2MB", 1}} }, ErrInvalid, "../2MB"},
		"unified on v1": {hostPod, func(c *Container) { c.Resources.Unified = map[string]string{"memory.high": "1"} }, ErrUnsupported, "v1"},
		"unified path": {hostPod, func(c *Container) {
			c.Host.CgroupV2 = true
			c.Resources.Unified = map[string]string{"../memory.high": "1"}
		}, ErrInvalid, "memory.high"},

		"device permissions": {hostPod, func(c *Container) {
			c.Devices = []HostDevice{{HostPath: "/dev/x", Access: "x", Node: null("", "/x").Node}}
		}, ErrInvalid, "/dev/x"},
		"relative device": {hostPod, func(c *Container) { c.Devices = []HostDevice{null("/dev/null", "x")} }, ErrInvalid, "device"},
		"device type": {hostPod, func(c *Container) {
			d := null("/dev/fifo", "/x")
			d.Node.Type = "p"
			c.Devices = []HostDevice{d}
		}, ErrInvalid, "/dev/fifo"},
	} {
		t.Run(name, func(t *testing.T) {
			c := tc.base()
			tc.edit(&c)
			spec, err := Build(c)
			if !errors.Is(err, tc.want) || spec != nil {
				t.Fatalf("got %v, %v, want %v", spec, err, tc.want)
			}
			if !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%q does not name %q", err, tc.text)
			}
		})
	}
}

func mount(m Mount) func(*Container) {
	return func(c *Container) { c.Mounts = append(c.Mounts, m) }
}

// A container's input is kept in a record and built from again.
func TestBuildLeavesItsInputAlone(t *testing.T) {
	c := usernsPod()
	c.Devices = []HostDevice{null("/dev/null", "/dev/x"), null("/dev/zero", "/dev/x")}
	c.Security.Capabilities = Capabilities{Add: []string{"ALL"}, Drop: []string{"CHOWN"}}
	first, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	first.Mounts[0].Options[0] = "changed"
	first.Process.Capabilities.Bounding[0] = "changed"
	first.Annotations["changed"] = "yes"
	second, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	if second.Mounts[0].Options[0] == "changed" || second.Process.Capabilities.Bounding[0] == "changed" ||
		second.Annotations["changed"] != "" || len(c.Devices) != 2 {
		t.Error("a specification shares memory with the next one or with its input")
	}
}

func TestTinyMappingHasNoTTYGroup(t *testing.T) {
	c := usernsPod()
	c.Mapping.Length = 5
	c.User = ResolvedUser{}
	spec, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Mounts {
		for _, o := range m.Options {
			if m.Type == "devpts" && o == "gid=5" {
				t.Error("devpts names a group that is not mapped, which the kernel refuses")
			}
		}
	}
}

func TestClientsDevReplacesDefaultsBelow(t *testing.T) {
	c := hostPod()
	mount(Mount{HostPath: "/dev", ContainerPath: "/dev"})(&c)
	spec, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Mounts {
		if strings.HasPrefix(m.Destination, "/dev") && m.Type != "bind" {
			t.Errorf("default mount %s beside the client's /dev", m.Destination)
		}
	}
}

func TestCheckSource(t *testing.T) {
	for _, tc := range []struct {
		propagation Propagation
		optional    string
		ok          bool
	}{
		{PropagationPrivate, "", true},
		{PropagationHostToContainer, "", false},
		{PropagationHostToContainer, "master:1", true},
		{PropagationHostToContainer, "shared:1 master:2", true},
		{PropagationHostToContainer, "unbindable", false},
		{PropagationBidirectional, "master:1", false},
		{PropagationBidirectional, "shared:1", true},
	} {
		m := Mount{HostPath: "/a", ContainerPath: "/b", Propagation: tc.propagation}
		if err := m.CheckSource(tc.optional); (err == nil) != tc.ok || (err != nil && !errors.Is(err, ErrInvalid)) {
			t.Errorf("%q on %q: %v", tc.propagation, tc.optional, err)
		}
	}
}

func TestHostIDs(t *testing.T) {
	m := &IDMapping{ContainerID: 10, HostID: 4294901760, Length: 65535}
	for id, want := range map[uint32]uint32{10: 4294901760, 65544: 4294967294} {
		if got, err := m.HostOf(id); err != nil || got != want {
			t.Errorf("host id of %d: %d, %v", id, got, err)
		}
	}
	for _, id := range []uint32{0, 9, 65545, 4294967295} {
		if _, err := m.HostOf(id); !errors.Is(err, ErrIDNotMapped) {
			t.Errorf("host id of %d: %v", id, err)
		}
	}
	if uid, gid, err := (ResolvedUser{UID: 7, GID: 8}).HostIDs(nil); uid != 7 || gid != 8 || err != nil {
		t.Errorf("in the host's user namespace: %d:%d, %v", uid, gid, err)
	}
}
