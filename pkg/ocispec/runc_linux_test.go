package ocispec

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestRuncHostUserns(t *testing.T) {
	b := newBench(t, 0)
	c := b.container(`id -u; id -g; id -G; echo $HOSTNAME $PWD; cat /proc/self/uid_map; cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs 2>/dev/null | grep -q .; ls -d /dev/shm /dev/mqueue /dev/pts`)
	c.User = ResolvedUser{UID: 1000, GID: 2000, AdditionalGids: []uint32{2000, 3000}}
	c.Process.Hostname = "web"
	got := strings.Join(strings.Fields(b.run(c)), " ")
	if want := "1000 2000 2000 3000 web / 0 0 4294967295 /dev/mqueue /dev/pts /dev/shm"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRuncUserns(t *testing.T) {
	b := newBench(t, testHostID)
	shared := b.write("volume/file", "x", 0o644) // host root's: needs the idmap
	shm := filepath.Join(b.dir, "shm")
	if err := os.Mkdir(shm, 0o777); err != nil {
		t.Fatal(err)
	}
	c := b.container(`id -u; cat /proc/self/uid_map
stat -c '%u:%g' /bin/busybox /volume/file /etc/hostname
ls /sys/class/net; grep -c ' /sys/fs/cgroup' /proc/self/mountinfo >/dev/null
for fs in sysfs mqueue devpts proc; do grep -c " - $fs " /proc/self/mountinfo; done
touch /volume/new /dev/shm/new; echo x >/dev/null; echo x >/dev/nothing`)
	c.Process.Hostname = "web"
	c.Files.Hostname = b.write("hostname", "web\n", 0o644)
	b.chown(c.Files.Hostname)
	c.Files.Shm = shm
	b.chown(shm)
	c.Mounts = []Mount{{HostPath: filepath.Dir(shared), ContainerPath: "/volume", IDMapped: true}}
	c.Devices = []HostDevice{null("/dev/null", "/dev/nothing")}
	got := strings.Join(strings.Fields(b.run(c)), " ")
	if want := "0 0 2113798144 65536 0:0 0:0 0:0 lo 1 1 1 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for name, want := range map[string]uint32{"volume/new": 0, "shm/new": testHostID} {
		info, err := os.Stat(filepath.Join(b.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != want {
			t.Errorf("%s belongs to %d on the host, want %d", name, uid, want)
		}
	}
}

// The host's network namespace is not the user namespace's, so sysfs cannot be mounted; the
// host's own is bound, and nothing of it may be writable. (On cgroup v1 runc mounts a tmpfs of
// the container's own over the hierarchies.)
func TestRuncUsernsHostNetwork(t *testing.T) {
	b := newBench(t, testHostID)
	c := b.container(`[ -e /sys/class/net/lo ]; readlink /proc/self/ns/net
while read -r id parent dev root at options rest; do
  case "$at $rest" in *"- tmpfs"*) ;; /sys*) case ,$options, in *,ro,*) ;; *) echo "$at $options";; esac;; esac
done </proc/self/mountinfo`)
	c.Namespaces.Network = Namespace{Host: true}
	b.expect(c, hostNamespace(t, "net"))
}

func hostNamespace(t *testing.T, kind string) string {
	t.Helper()
	link, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestRuncHostPIDAndIPC(t *testing.T) {
	b := newBench(t, 0)
	c := b.container(`readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; [ -d /proc/` + fmt.Sprint(os.Getpid()) + ` ]`)
	c.Namespaces.PID = Namespace{Host: true}
	c.Namespaces.IPC = Namespace{Host: true}
	c.Files.Shm = "/dev/shm"
	b.expect(c, hostNamespace(t, "pid")+"\n"+hostNamespace(t, "ipc"))
}

func TestRuncSharedPID(t *testing.T) {
	b := newBench(t, testHostID)
	c := b.container(`cat /proc/1/cmdline; echo $$`)
	c.Namespaces.PID = Namespace{Path: strings.Replace(c.Namespaces.User, "/user", "/pid", 1)}
	if got := b.run(c); !strings.HasPrefix(got, "busybox\x00cat\x00") {
		t.Errorf("first process of the shared namespace: %q", got)
	}
}

func TestRuncPrivileged(t *testing.T) {
	for name, tc := range map[string]struct {
		owner int
		caps  string // in a user namespace of its own all, whatever the daemon lacks
	}{
		"host":   {0, "CapEff:\t0000000000200001"},
		"userns": {testHostID, "CapEff:\t000001ffffffffff"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, tc.owner)
			c := b.container(`grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; grep ' /sys ' /proc/self/mountinfo
for d in /dev/*; do [ ! -b $d ] || echo block; done | busybox head -1`)
			c.Security.Privileged = true
			c.Security.Seccomp.Type = ProfileRuntimeDefault
			c.Host.Capabilities = []string{"CAP_SYS_ADMIN", "CAP_CHOWN"}
			nodes, err := oci.HostDevices()
			if err != nil {
				t.Fatal(err)
			}
			blocks := 0
			for _, node := range nodes {
				c.Devices = append(c.Devices, HostDevice{HostPath: node.Path, Node: node, Access: "rwm"})
				if node.Type == "b" {
					blocks++
				}
			}
			out := b.run(c)
			for _, want := range []string{tc.caps, "Seccomp:\t0", "rw,nosuid,nodev,noexec"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
			if strings.Contains(out, "block") != (blocks > 0) {
				t.Errorf("%d block devices on the host, in the container:\n%s", blocks, out)
			}
		})
	}
}

// In a user namespace "ALL" means all, whatever the daemon lacks.
func TestRuncUsernsAllCapabilities(t *testing.T) {
	b := newBench(t, testHostID)
	c := b.container(`grep CapEff /proc/self/status; hostname renamed; mount -t tmpfs none /tmp`)
	if err := os.Mkdir(filepath.Join(b.rootfs, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	c.Security.Capabilities.Add = []string{"ALL"}
	c.Host.Capabilities = []string{"CAP_CHOWN"}
	b.expect(c, "CapEff:\t000001ffffffffff")
}

func TestRuncSeccompAndNoNewPrivs(t *testing.T) {
	b := newBench(t, 0)
	c := b.container(`grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status`)
	c.Security.Seccomp.Type = ProfileRuntimeDefault
	c.Security.NoNewPrivs = true
	b.expect(c, "NoNewPrivs:\t1\nSeccomp:\t2")
}

func TestRuncReadonlyRootfs(t *testing.T) {
	b := newBench(t, 0)
	c := b.container(`touch /x 2>/dev/null && echo writable; touch /dev/shm/x /data/x && echo volumes are not`)
	c.Security.ReadonlyRootfs = true
	data := filepath.Dir(b.write("data/file", "", 0o644))
	if err := os.Mkdir(filepath.Join(b.rootfs, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.Mounts = []Mount{{HostPath: data, ContainerPath: "/data"}}
	b.expect(c, "volumes are not")
}

func TestRuncExecInherits(t *testing.T) {
	b := newBench(t, testHostID)
	c := b.container(`sleep 600`)
	user, err := ResolveUser(hostFiles(b.rootfs), "alice", User{})
	if err != nil {
		t.Fatal(err)
	}
	c.User = user
	c.Process.Env = []KeyValue{{"A", "b"}}
	c.Security.NoNewPrivs = true
	bundle := b.bundle(c)
	// With files instead of pipes nothing waits for the detached container to close them.
	if out, err := b.detached(c.ID, bundle); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := b.do("delete", "--force", c.ID); err != nil {
			t.Errorf("delete: %v: %s", err, out)
		}
	})
	var spec specs.Spec
	config, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(config, &spec); err != nil {
		t.Fatal(err)
	}
	process, err := BuildExec(spec.Process, Exec{Args: []string{
		"/bin/sh", "-c", applets + `id -u; id -G; echo $A; grep NoNewPrivs /proc/self/status`,
	}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(process)
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.do("exec", "--process", b.write("process.json", string(text), 0o600), c.ID)
	if want := "1000\n1000 50000\nb\nNoNewPrivs:\t1\n"; err != nil || out != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}
