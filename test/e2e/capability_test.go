package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// powerful is in-pod root with every capability and no seccomp filter: what is refused now, the kernel
// refuses because of the user namespace.
func powerful(t *testing.T, n *nodetest.Node, opts ...nodetest.ContainerOption) *nodetest.Container {
	t.Helper()
	opts = append(opts, nodetest.Capabilities("ALL"), nodetest.Unconfined)
	return n.RunPod(t).Run(t, probeImage(t, n), opts...)
}

func TestInPodRootWithTheCapability(t *testing.T) {
	n := sharedNode(t)
	c := powerful(t, n)
	t.Run("can add a network device", func(t *testing.T) {
		if r := probe(t, c, "linkadd", "e2e0"); r.Errno != "" || r.Text != "e2e0 veth" {
			t.Errorf("adding a link gives %+v", r)
		}
		if got := c.Exec(t, "ls", "/sys/class/net"); !strings.Contains(got, "e2e0") {
			t.Errorf("/sys/class/net holds %q, want e2e0 too", fields(got))
		}
	})
	t.Run("can mount a tmpfs", func(t *testing.T) {
		c.Exec(t, "mkdir", "/mnt")
		// In one process: the mount goes with its mount namespace, which is the container's.
		if r := probe(t, c, "mounttmpfs", "/mnt"); r.Errno != "" {
			t.Errorf("mounting a tmpfs gives %+v", r)
		}
		if got := c.Exec(t, "stat", "-f", "-c", "%T", "/mnt"); got != "tmpfs" {
			t.Errorf("/mnt is of type %q, want tmpfs", got)
		}
	})
	t.Run("can set the hostname", func(t *testing.T) {
		if r := probe(t, c, "sethostname", "renamed"); r.Errno != "" || r.Text != "renamed" {
			t.Errorf("sethostname gives %+v", r)
		}
		if host, err := os.Hostname(); err != nil || host == "renamed" {
			t.Errorf("the host is called %q (%v) now", host, err)
		}
	})
}

func TestInPodRootWithoutTheCapabilityCannotAddADevice(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, probeImage(t, n))
	if r := probe(t, c, "linkadd", "e2e0"); r.Errno != "EPERM" {
		t.Errorf("adding a link gives %+v, want EPERM", r)
	}
}

func TestInPodRootCannotReachTheHost(t *testing.T) {
	n := sharedNode(t)
	c := powerful(t, n)
	t.Run("change the clock", func(t *testing.T) {
		if r := probe(t, c, "settime"); r.Errno != "EPERM" {
			t.Errorf("clock_settime gives %+v, want EPERM", r)
		}
	})
	t.Run("load a module", func(t *testing.T) {
		want := "EPERM"
		if onHost(t, "initmodule").Errno == "ENOSYS" {
			want = "ENOSYS" // a kernel without modules refuses everybody
		}
		if r := probe(t, c, "initmodule"); r.Errno != want {
			t.Errorf("init_module gives %+v, want %s", r, want)
		}
	})
	t.Run("make a device", func(t *testing.T) {
		for _, dir := range []string{"/tmp", "/dev", "/dev/shm"} {
			if r := probe(t, c, "mknod", dir+"/null2"); r.Errno != "EPERM" {
				t.Errorf("mknod in %s gives %+v, want EPERM", dir, r)
			}
		}
	})
	t.Run("read dmesg where it is restricted", func(t *testing.T) {
		restricted, err := os.ReadFile("/proc/sys/kernel/dmesg_restrict")
		if err != nil {
			t.Fatal(err)
		}
		want := "EPERM"
		if strings.TrimSpace(string(restricted)) == "0" {
			want = "" // then anybody may
		}
		if r := probe(t, c, "dmesg"); r.Errno != want {
			t.Errorf("syslog(2) gives %+v, want %q", r, want)
		}
	})
}

// onHost runs the probe on the host.
func onHost(t *testing.T, args ...string) result {
	t.Helper()
	out, err := exec.Command(probeOnHost(t), args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return parseResult(t, string(out))
}

// probeOnHost writes the probe where every user of the host can run it.
func probeOnHost(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "probe-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "probe")
	if err := os.WriteFile(path, shared.programs(t).probe, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNestedUserNamespaceMapsOnlyIDsOfThePod(t *testing.T) {
	n := sharedNode(t)
	c := powerful(t, n)
	if r := probe(t, c, "nested"); r.Errno != "" || r.Text != "0 0 65536" {
		t.Errorf("a user namespace with all of the pod's ids gives %+v", r)
	}
	if r := probe(t, c, "nestedbeyond"); r.Errno != "EPERM" {
		t.Errorf("a user namespace with an id beyond the pod's gives %+v, want EPERM", r)
	}
}

// TestReadOnlyMountFromTheHostCannotBeMadeWritable tries each way that in-pod root with CAP_SYS_ADMIN has.
func TestReadOnlyMountFromTheHostCannotBeMadeWritable(t *testing.T) {
	n := sharedNode(t)
	for _, way := range []string{"remount", "setattr", "rebind"} {
		t.Run(way+" what the host mounts read-only", func(t *testing.T) {
			dir := volume(t, n)
			bindReadOnly(t, n, dir)
			c := powerful(t, n, nodetest.Mount(dir, "/ro"))
			wantUnwritten(t, probe(t, c, way, "/ro"), dir)
		})
		t.Run(way+" what the pod mounts read-only", func(t *testing.T) {
			dir := volume(t, n)
			c := powerful(t, n, nodetest.ReadOnlyMount(dir, "/ro"))
			wantUnwritten(t, probe(t, c, way, "/ro"), dir)
		})
	}
}

func wantUnwritten(t *testing.T, r result, dir string) {
	t.Helper()
	if r.Errno == "" {
		t.Errorf("in-pod root with CAP_SYS_ADMIN wrote to a read-only volume: %+v", r)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("the host's directory holds %v (%v), want nothing", entries, err)
	}
}

// bindReadOnly makes a directory a read-only mount on the node.
func bindReadOnly(t *testing.T, n *nodetest.Node, dir string) {
	t.Helper()
	for _, args := range [][]string{{"--bind", dir, dir}, {"-o", "remount,bind,ro", dir}} {
		if _, err := n.World.Output(exec.Command("mount", args...)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := n.World.Output(exec.Command("umount", dir)); err != nil {
			t.Error(err)
		}
	})
}

func TestSysIsMountedForThePodsNetwork(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, "demo:latest"))
	if got := fields(c.Exec(t, "ls", "/sys/class/net")); got != "eth0 lo" {
		t.Errorf("/sys/class/net holds %q, want the pod's own eth0 and lo", got)
	}
	if got := c.Exec(t, "stat", "-f", "-c", "%T", "/sys"); got != "sysfs" {
		t.Errorf("/sys is of type %q, want sysfs", got)
	}
}
