package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/kernel"
)

// sick is a change of a node that is well, and what is to be found then: "check severity" and words of the message, in their order.
type sick struct {
	change func(w *world)
	want   [][2]string
}

func (s sick) check(t *testing.T) {
	w := newWorld(t)
	s.change(w)
	bad, _ := w.examine()
	if len(bad) != len(s.want) {
		t.Fatalf("found %+v, want %q", bad, s.want)
	}
	for i, f := range bad {
		if got := f.Check + " " + string(f.Severity); got != s.want[i][0] || !strings.Contains(f.Message+" -> "+f.Remedy, s.want[i][1]) {
			t.Errorf("found %+v, want %q", f, s.want[i])
		}
	}
}

func check(t *testing.T, cases map[string]sick) {
	for name, c := range cases {
		t.Run(name, c.check)
	}
}

func TestANodeThatIsWell(t *testing.T) {
	bad, all := newWorld(t).examine()
	if len(bad) != 0 || all.Worst() != OK || len(all.Findings) < 15 {
		t.Errorf("found %+v among %d", bad, len(all.Findings))
	}
}

func TestKernelAndFilesystems(t *testing.T) {
	broken := errors.New("EPERM")
	check(t, map[string]sick{
		"old":     {func(w *world) { w.write("/proc/sys/kernel/osrelease", "5.15.0-91-generic") }, [][2]string{{"kernel warning", "5.15.0"}}},
		"no proc": {func(w *world) { w.remove("/proc/sys/kernel/osrelease") }, [][2]string{{"kernel unknown", "mount -t proc"}}},
		"no user namespaces": {
			func(w *world) { w.kernel.missing["user namespaces"] = unsupported("") },
			[][2]string{{"kernel error", "boot a kernel with"}},
		},
		"no detached layers": {
			func(w *world) { w.kernel.missing["overlay over detached layers"] = unsupported("") },
			[][2]string{{"kernel info", "a millisecond more"}},
		},
		"not root":        {func(w *world) { w.kernel.missing["idmapped tmpfs"] = broken }, [][2]string{{"kernel unknown", "as root"}}},
		"images on NFS":   {func(w *world) { w.kernel.plain["/var/lib/containerd/overlayfs"] = unsupported("x") }, [][2]string{{"filesystem error", "snapshotter overlayfs"}}},
		"a volume on NFS": {func(w *world) { w.kernel.plain["/srv/kubelet/pods/a/volumes/data"] = unsupported("x") }, [][2]string{{"filesystem warning", "/srv/kubelet/pods/a"}}},
		"an unknown one":  {func(w *world) { w.kernel.plain["/srv/kubelet"] = broken }, [][2]string{{"filesystem unknown", "/srv/kubelet"}}},
		"one to come":     {func(w *world) { w.kernel.plain["/var/lib/userns-shim"] = fs.ErrNotExist }, [][2]string{{"filesystem info", "not there yet"}}},
	})
}

func TestRuntime(t *testing.T) {
	down := errors.New("connection refused")
	check(t, map[string]sick{
		"containerd is down": {
			func(w *world) { w.engine.err = down },
			[][2]string{{"containerd error", "connection refused"}, {"handler unknown", "asked through containerd"}},
		},
		"an old containerd":  {func(w *world) { w.engine.version = "v1.7.27" }, [][2]string{{"containerd error", "2.0"}}},
		"no list of plugins": {func(w *world) { w.engine.pluginsErr = down }, [][2]string{{"containerd unknown", "plugins ls"}}},
		"no snapshotter":     {func(w *world) { w.engine.plugins = w.engine.plugins[:1] }, [][2]string{{"containerd error", "no snapshotter overlayfs"}}},
		"no runtime":         {func(w *world) { w.engine.plugins = w.engine.plugins[1:] }, [][2]string{{"containerd error", "no runtime of tasks"}}},
		"a broken snapshotter": {
			func(w *world) { w.engine.plugins[1].Err = "no such device" },
			[][2]string{{"containerd error", "modprobe overlay"}},
		},
		"its CRI plugin": {
			func(w *world) { w.engine.plugins = append(w.engine.plugins, Plugin{Type: grpcType, ID: "cri"}) },
			[][2]string{{"containerd info", "disabled_plugins"}},
		},
		"its NRI": {
			func(w *world) { w.engine.plugins = append(w.engine.plugins, Plugin{Type: nriType, ID: "nri"}) },
			[][2]string{{"containerd info", "disable = true"}},
		},
		"its NRI, and none here": {func(w *world) {
			w.engine.plugins = append(w.engine.plugins, Plugin{Type: nriType, ID: "nri"})
			w.opts.Node.NRI = ""
		}, nil},
		"an old runc": {
			func(w *world) {
				w.opts.Ports.UserNamespaces = func(_ context.Context, h string) error {
					return errors.New(h + " does not support idmapped mounts; runc does from 1.2")
				}
			},
			[][2]string{{"handler error", "install runc 1.2"}},
		},
		"no user namespaces": {func(w *world) { w.opts.Node.Handlers[0].Never = true }, [][2]string{{"handler info", "userNamespaces: never"}}},
		"no network": {
			func(w *world) { w.opts.Ports.Network = func(context.Context) error { return errors.New("no bridge") } },
			[][2]string{{"network error", "no bridge"}},
		},
	})
}

func TestCgroupsAndSysctls(t *testing.T) {
	check(t, map[string]sick{
		"no cgroups": {func(w *world) { w.kernel.mode = kernel.CgroupUnavailable }, [][2]string{{"cgroup error", "no cgroups"}}},
		"version 1": {
			func(w *world) { w.kernel.mode = kernel.CgroupLegacy },
			[][2]string{{"cgroup info", "version 1"}, {"cgroup warning", "unified_cgroup_hierarchy"}},
		},
		"no systemd":                 {func(w *world) { w.remove("/run/systemd") }, [][2]string{{"cgroup error", "cgroupDriver: cgroupfs"}}},
		"no user namespaces at all":  {func(w *world) { w.sysctl("user.max_user_namespaces", "0") }, [][2]string{{"sysctl error", "user.max_user_namespaces=65536"}}},
		"few user namespaces":        {func(w *world) { w.sysctl("user.max_user_namespaces", "100") }, [][2]string{{"sysctl warning", "is 100"}}},
		"few network namespaces":     {func(w *world) { w.sysctl("user.max_net_namespaces", "100") }, [][2]string{{"sysctl warning", "max_net_namespaces"}}},
		"the usual inotify":          {func(w *world) { w.sysctl("fs.inotify.max_user_instances", "128") }, [][2]string{{"sysctl warning", "max_user_instances=8192"}}},
		"the usual number of pids":   {func(w *world) { w.sysctl("kernel.pid_max", "32768") }, [][2]string{{"sysctl warning", "kernel.pid_max=4194304"}}},
		"no forwarding":              {func(w *world) { w.sysctl("net.ipv4.ip_forward", "0") }, [][2]string{{"sysctl warning", "ip_forward=1"}}},
		"a sysctl that is not there": {func(w *world) { w.remove("/proc/sys/kernel/keys") }, nil},
		"none at all": {func(w *world) {
			w.remove("/proc/sys/user")
			w.remove("/proc/sys/fs")
			w.remove("/proc/sys/net")
			w.remove("/proc/sys/kernel")
		}, [][2]string{{"kernel unknown", ""}, {"sysctl unknown", "no sysctl"}}},
		"Debian's restriction": {func(w *world) { w.sysctl("kernel.unprivileged_userns_clone", "0") }, [][2]string{{"sysctl info", "unprivileged_userns_clone is 0"}}},
		"Ubuntu's restriction": {func(w *world) { w.sysctl("kernel.apparmor_restrict_unprivileged_userns", "1") }, [][2]string{{"sysctl info", "restrict_unprivileged_userns is 1"}}},
	})
}

func TestDaemonAndState(t *testing.T) {
	check(t, map[string]sick{
		"the daemon is down": {
			func(w *world) {
				w.opts.Ports.Daemon = func(context.Context) (Daemon, error) { return Daemon{}, errors.New("nobody listens") }
			},
			[][2]string{{"daemon error", "nobody listens"}, {"limits unknown", "start the daemon"}},
		},
		"another version": {
			func(w *world) {
				w.opts.Ports.Daemon = func(context.Context) (Daemon, error) { return Daemon{PID: 7, Version: "v0.9"}, nil }
			},
			[][2]string{{"daemon warning", "v0.9"}},
		},
		"few files": {
			func(w *world) {
				w.write("/proc/7/limits", "Max open files            1024                 4096                 files\n")
			},
			[][2]string{{"limits warning", "LimitNOFILE"}},
		},
		"limits that are passed on": {
			func(w *world) {
				w.write("/proc/7/status", "CapEff:\t00000000fefffbff\n")
				w.write("/proc/7/limits", "Max open files   1   65536   files\nMax pending signals   1   95000   signals\nMax locked memory   1   8388608   bytes\nMax msgqueue size   1   819200   bytes\n")
			},
			[][2]string{{"limits warning", "LimitSIGPENDING"}, {"limits warning", "LimitMEMLOCK"}, {"limits warning", "LimitMSGQUEUE"}},
		},
		"unknown limits": {func(w *world) { w.remove("/proc/7") }, [][2]string{{"limits unknown", "process 7"}}},
		"a damaged database": {
			func(w *world) { w.opts.Ports.State = func(string) error { return errors.New("is damaged") } },
			[][2]string{{"state error", "is damaged"}},
		},
		"no database yet": {
			func(w *world) { w.opts.Ports.State = func(string) error { return fs.ErrNotExist } },
			[][2]string{{"state info", "not there yet"}},
		},
		"a full disk": {
			func(w *world) { w.opts.Ports.FreeSpace = func(string) (float64, error) { return 0.031, nil } },
			[][2]string{{"state warning", "3.1 %"}},
		},
		"an unknown disk": {
			func(w *world) { w.opts.Ports.FreeSpace = func(string) (float64, error) { return 0, errors.New("x") } },
			[][2]string{{"state unknown", "df"}},
		},
	})
}

func TestKubelet(t *testing.T) {
	check(t, map[string]sick{
		"none": {func(w *world) { w.remove("/proc/9") }, [][2]string{{"kubelet info", "no kubelet"}}},
		"kubeadm's, not running": {func(w *world) {
			w.remove("/proc/9")
			w.write(kubeletConfigFile, "cgroupDriver: cgroupfs\n")
		}, [][2]string{{"kubelet error", "cgroupDriver: cgroupfs in the configuration"}}},
		"another runtime": {func(w *world) { w.kubelet("containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n") }, [][2]string{{"kubelet warning", "containerd.sock"}}},
		"another runtime, by a flag": {
			func(w *world) {
				w.write("/proc/9/cmdline", "kubelet\x00--container-runtime-endpoint=/run/crio/crio.sock\x00--config\x00/etc/kubelet.yaml\x00")
			},
			[][2]string{{"kubelet warning", "crio.sock"}},
		},
		"another driver":     {func(w *world) { w.kubelet("cgroupDriver: cgroupfs\n") }, [][2]string{{"kubelet error", "wrong place"}}},
		"a feature gate":     {func(w *world) { w.kubelet("featureGates: {UserNamespacesSupport: false}\n") }, [][2]string{{"kubelet error", "UserNamespacesSupport"}}},
		"larger ranges":      {func(w *world) { w.kubelet("userNamespaces: {idsPerPod: 131072}\n") }, nil},
		"ranges of no size":  {func(w *world) { w.kubelet("userNamespaces: {idsPerPod: 1000}\n") }, [][2]string{{"kubelet error", "1000"}, {"subids error", "idsPerPod"}}},
		"a file of nonsense": {func(w *world) { w.kubelet(":\n- {") }, [][2]string{{"kubelet warning", "cannot be read"}}},
	})
}

func TestSubIDs(t *testing.T) {
	both := func(w *world, text string) { w.subids["kubelet"], w.subids["-g kubelet"] = text, text }
	check(t, map[string]sick{
		"no user": {
			func(w *world) { w.opts.Ports.KubeletUser = func() (bool, error) { return false, nil } },
			[][2]string{{"subids warning", "useradd --system --no-create-home kubelet; echo kubelet:2013265920:100532224 | tee -a /etc/subuid /etc/subgid"}},
		},
		"a name service that hangs": {
			func(w *world) {
				w.opts.Ports.KubeletUser = func() (bool, error) { return false, errors.New("timeout") }
			},
			[][2]string{{"subids unknown", "timeout"}},
		},
		"no getsubids": {
			func(w *world) {
				w.opts.Ports.Getsubids = func(context.Context, ...string) (string, error) { return "", fmt.Errorf("x: %w", ErrNoProgram) }
			},
			[][2]string{{"subids warning", "uidmap"}},
		},
		"a getsubids that fails": {
			func(w *world) {
				w.opts.Ports.Getsubids = func(context.Context, ...string) (string, error) { return "", errors.New("exit status 1") }
			},
			[][2]string{{"subids error", "exit status 1"}},
		},
		"no line":         {func(w *world) { both(w, "") }, [][2]string{{"subids error", "no subordinate ids"}}},
		"two lines":       {func(w *world) { both(w, "0: kubelet 65536 65536\n1: kubelet 131072 65536\n") }, [][2]string{{"subids error", "more than one"}}},
		"other group ids": {func(w *world) { w.subids["-g kubelet"] = "0: kubelet 65536 65536\n" }, [][2]string{{"subids error", "differ"}}},
		"an odd length":   {func(w *world) { both(w, "0: kubelet 65536 70000\n") }, [][2]string{{"subids error", "multiple"}}},
	})
}
