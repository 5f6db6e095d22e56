package ns

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestValidateSysctl(t *testing.T) {
	all := Own{Network: true, IPC: true, UTS: true}
	tests := []struct {
		name string
		own  Own
		ok   bool
	}{
		{"kernel.shm_rmid_forced", all, true},
		{"kernel/shm_rmid_forced", all, true},
		{"kernel.sem", all, true},
		{"kernel.msgmax", Own{IPC: true}, true},
		{"fs.mqueue.msg_max", Own{IPC: true}, true},
		{"net.ipv4.ip_unprivileged_port_start", Own{Network: true}, true},
		{"net.ipv4.conf.eth0/100.forwarding", all, true},
		{"net/ipv4/conf/eth0.100/forwarding", all, true},
		{"kernel.domainname", Own{UTS: true}, true},

		{"kernel.shmmax", Own{Network: true, UTS: true}, false},
		{"fs.mqueue.msg_max", Own{Network: true, UTS: true}, false},
		{"net.core.somaxconn", Own{IPC: true, UTS: true}, false},
		{"kernel.domainname", Own{Network: true, IPC: true}, false},

		{"kernel.panic", all, false},
		{"kernel.hostname", all, false},
		{"kernel.shmfuture", all, false},
		{"kernel.sem.deeper", all, false},
		{"vm.overcommit_memory", all, false},
		{"fs.file-max", all, false},
		{"fs.mqueue", all, false},
		{"user.max_user_namespaces", all, false},

		{"", all, false},
		{"net", all, false},
		{".", all, false},
		{"net.", all, false},
		{".net.core.somaxconn", all, false},
		{"/net/core/somaxconn", all, false},
		{"net..core", all, false},
		{"net/../kernel/panic", all, false},
		{"net/./core/somaxconn", all, false},
		{"net.//.kernel.panic", all, false}, // '/' stands for a dot: net/../kernel/panic
		{"net./.core", all, false},
		{"net/core/some\nthing", all, false},
		{"net/core/some\x00thing", all, false},
	}
	for _, tt := range tests {
		err := ValidateSysctl(tt.name, tt.own)
		if (err == nil) != tt.ok {
			t.Errorf("ValidateSysctl(%q, %+v) = %v, want ok %t", tt.name, tt.own, err, tt.ok)
		}
		if err != nil && !errors.Is(err, ErrSysctl) {
			t.Errorf("ValidateSysctl(%q) = %v, which does not wrap ErrSysctl", tt.name, err)
		}
	}
}

func TestSysctlPathSeparators(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.conf.eth0/100.forwarding": "net/ipv4/conf/eth0.100/forwarding",
		"net/ipv4/conf/eth0.100/forwarding": "net/ipv4/conf/eth0.100/forwarding",
		"kernel.sem":                        "kernel/sem",
	} {
		got, err := sysctlPath(name)
		if err != nil || strings.Join(got, "/") != want {
			t.Errorf("sysctlPath(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestSplitSysctls(t *testing.T) {
	early, late := SplitSysctls(map[string]string{
		"kernel.sem": "1", "fs/mqueue/msg_max": "2", "net.core.somaxconn": "3", "net/ipv4/ip_forward": "4", "net..bad": "5",
	})
	if got := slices.Sorted(maps.Keys(early)); !slices.Equal(got, []string{"fs/mqueue/msg_max", "kernel.sem", "net..bad"}) {
		t.Errorf("early = %q", got)
	}
	if got := slices.Sorted(maps.Keys(late)); !slices.Equal(got, []string{"net.core.somaxconn", "net/ipv4/ip_forward"}) {
		t.Errorf("late = %q", got)
	}
}

// FuzzSysctlPath holds that no accepted name leaves the directory that it is resolved in.
func FuzzSysctlPath(f *testing.F) {
	for _, seed := range []string{"net.ipv4.conf.eth0/100.forwarding", "net/../../etc/passwd", "a./.", "a.//", "net.//.x", "..", "a/b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, err := sysctlPath(name)
		if err != nil {
			return
		}
		joined := strings.Join(path, "/")
		if !filepath.IsLocal(joined) || filepath.Clean(joined) != joined {
			t.Errorf("sysctlPath(%q) = %q", name, joined)
		}
	})
}

func TestNetNSPath(t *testing.T) {
	id := "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	if got, want := NetNSPath(id), "/var/run/netns/cni-01234567-89ab-cdef-0123-456789abcdef"; got != want {
		t.Errorf("NetNSPath = %s, want %s", got, want)
	}
	seen := map[string]string{}
	for _, id := range []string{id, "", "short", "../../../../../../../../../../../../etc/passwd", strings.Repeat("G", 64), strings.Repeat("a", 31)} {
		p := NetNSPath(id)
		if filepath.Dir(p) != NetNSDir || len(filepath.Base(p)) != len("cni-")+36 {
			t.Errorf("NetNSPath(%q) = %s", id, p)
		}
		if other, ok := seen[p]; ok {
			t.Errorf("NetNSPath gives %s for %q and for %q", p, id, other)
		}
		seen[p] = id
	}
}

func TestValidateRequest(t *testing.T) {
	good := Request{User: &IDMap{HostID: 65536, Length: 65536}, Network: true, IPC: true, UTS: true, Hostname: "pod", Dir: "/run/x/ns", NetPath: "/run/x/net"}
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Request){
		"no ids":                    func(r *Request) { r.User = &IDMap{HostID: 65536} },
		"reaches 2^32-1":            func(r *Request) { r.User = &IDMap{HostID: 0xFFFF0000, Length: 65536} },
		"past 2^32":                 func(r *Request) { r.User = &IDMap{HostID: 0xFFFF0001, Length: 65536} },
		"relative dir":              func(r *Request) { r.Dir = "ns" },
		"no dir":                    func(r *Request) { r.Dir = "" },
		"dir with dots":             func(r *Request) { r.Dir = "/run/../etc" },
		"no network path":           func(r *Request) { r.NetPath = "" },
		"NUL in the path":           func(r *Request) { r.NetPath = "/run/a\x00b" },
		"hostname without UTS":      func(r *Request) { r.UTS = false },
		"long hostname":             func(r *Request) { r.Hostname = strings.Repeat("a", 65) },
		"NUL in the hostname":       func(r *Request) { r.Hostname = "a\x00" },
		"sysctl of the host":        func(r *Request) { r.Sysctls = map[string]string{"kernel.panic": "1"} },
		"net sysctl, host networks": func(r *Request) { r.Network = false; r.Sysctls = map[string]string{"net.core.somaxconn": "1"} },
	} {
		r := good
		change(&r)
		if err := r.validate(); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrSysctl) {
			t.Errorf("%s: validate = %v", name, err)
		}
	}
	last := good
	last.User = &IDMap{HostID: 0xFFFEFFFF, Length: 65536}
	if err := last.validate(); err != nil {
		t.Errorf("the highest range that the kernel takes: %v", err)
	}
	host := Request{}
	if err := host.validate(); err != nil {
		t.Errorf("a pod with nothing of its own: %v", err)
	}
}

func TestSysctlOnHost(t *testing.T) {
	user := &IDMap{HostID: 1 << 20, Length: 65536}
	for _, tc := range []struct {
		name, value string
		user        *IDMap
		want        string
	}{
		{"net.ipv4.ping_group_range", "0 2147483647", user, "1048576 1114111"},
		{"net/ipv4/ping_group_range", " 1000\t2000", user, "1049576 1050576"},
		{"net.ipv4.ping_group_range", "65535 65535", user, "1114111 1114111"},
		{"net.ipv4.ping_group_range", "1 0", user, "1 0"},
		{"net.ipv4.ping_group_range", "0 1000", nil, "0 1000"},
		{"net.ipv4.ping_group_range", "all", user, "all"},
		{"net.ipv4.ip_local_port_range", "1000 2000", user, "1000 2000"},
	} {
		path, err := sysctlPath(tc.name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sysctl{tc.name, tc.value, path}.onHost(tc.user)
		if err != nil || got.value != tc.want {
			t.Errorf("%s=%q is %q on the host, %v, want %q", tc.name, tc.value, got.value, err, tc.want)
		}
	}
	beyond := sysctl{"net.ipv4.ping_group_range", "65536 70000", []string{"net", "ipv4", "ping_group_range"}}
	if _, err := beyond.onHost(user); !errors.Is(err, ErrSysctl) {
		t.Errorf("groups that the pod does not have: %v, want ErrSysctl", err)
	}
}
