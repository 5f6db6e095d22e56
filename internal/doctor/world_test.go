package doctor

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/userns-shim/userns-shim/internal/kernel"
)

// fakeKernel can do everything, but for what is named.
type fakeKernel struct {
	missing map[string]error // by feature
	plain   map[string]error // by path
	mode    kernel.CgroupMode
}

func (k *fakeKernel) Features() []kernel.Feature {
	var out []kernel.Feature
	for _, name := range []string{"user namespaces", "process file descriptors", "idmapped tmpfs", "overlay over detached layers"} {
		out = append(out, kernel.Feature{Name: name, Needs: "Linux 6.3", Err: k.missing[name]})
	}
	return out
}

func (k *fakeKernel) IDMapped(path string) error              { return k.plain[path] }
func (k *fakeKernel) OverlayLayersIDMapped(path string) error { return k.plain[path] }
func (k *fakeKernel) CgroupMode() kernel.CgroupMode           { return k.mode }

func unsupported(where string) error {
	return &kernel.FeatureError{Feature: "idmapped mounts", Where: where, Needs: "Linux 5.12", Err: os.ErrInvalid}
}

// fakeEngine is containerd.
type fakeEngine struct {
	version    string
	err        error
	plugins    []Plugin
	pluginsErr error
}

func (e *fakeEngine) Version(context.Context) (string, error)   { return e.version, e.err }
func (e *fakeEngine) Plugins(context.Context) ([]Plugin, error) { return e.plugins, e.pluginsErr }

func (e *fakeEngine) SnapshotterRoot(_ context.Context, name string) (string, error) {
	return "/var/lib/containerd/" + name, e.err
}

// world is a node that is well until a test changes something.
type world struct {
	t      *testing.T
	opts   Options
	kernel *fakeKernel
	engine *fakeEngine
	subids map[string]string // what getsubids prints, by its arguments
}

func newWorld(t *testing.T) *world {
	w := &world{
		t:      t,
		kernel: &fakeKernel{missing: map[string]error{}, plain: map[string]error{}, mode: kernel.CgroupUnified},
		engine: &fakeEngine{version: "v2.4.2", plugins: []Plugin{
			{Type: runtimeType, ID: "task"}, {Type: snapshotterType, ID: "overlayfs"},
		}},
		subids: map[string]string{
			"kubelet": "0: kubelet 2013265920 100532224\n", "-g kubelet": "0: kubelet 2013265920 100532224\n",
		},
	}
	w.opts = Options{
		FS: t.TempDir(), Version: "v1.0",
		Node: Node{
			Listen: "unix:///run/userns-shim/userns-shim.sock", Root: "/var/lib/userns-shim", Containerd: "/run/containerd/containerd.sock",
			ConfDir: "/etc/cni/net.d", SystemdCgroup: true, NRI: "/var/run/nri/nri.sock",
			Handlers: []Handler{{Name: "runc", BinaryName: "runc", Snapshotter: "overlayfs"}},
		},
		Ports: Ports{
			Kernel: w.kernel, Engine: w.engine,
			UserNamespaces: func(context.Context, string) error { return nil },
			Network:        func(context.Context) error { return nil },
			KubeletUser:    func() (bool, error) { return true, nil },
			Getsubids: func(_ context.Context, args ...string) (string, error) {
				key := args[0]
				if len(args) > 1 {
					key += " " + args[1]
				}
				return w.subids[key], nil
			},
			Daemon:    func(context.Context) (Daemon, error) { return Daemon{PID: 7, Version: "v1.0"}, nil },
			State:     func(string) error { return nil },
			FreeSpace: func(string) (float64, error) { return 0.42, nil },
		},
	}
	w.writeFiles()
	return w
}

func (w *world) writeFiles() {
	w.write("/proc/sys/kernel/osrelease", "6.12.5-amd64\n")
	for _, s := range sysctls {
		w.sysctl(s.name, "1048576")
	}
	w.write("/run/systemd/system/x", "")
	w.write("/proc/7/limits", "Limit                     Soft Limit           Hard Limit           Units     \n"+
		"Max open files            1024                 1048576              files     \n"+
		"Max pending signals       95000                unlimited            signals   \n"+
		"Max locked memory         unlimited            unlimited            bytes     \n"+
		"Max msgqueue size         819200               unlimited            bytes     \n")
	w.write("/proc/7/status", "Name:\tuserns-shim\nCapEff:\t000001ffffffffff\n")
	w.write("/proc/1/cmdline", "/sbin/init\x00")
	w.write("/proc/9/cmdline", "/usr/bin/kubelet\x00--config=/etc/kubelet.yaml\x00--root-dir\x00/srv/kubelet\x00")
	w.kubelet("cgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///run/userns-shim/userns-shim.sock\n")
	w.write("/proc/self/mountinfo", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"+
		"30 21 0:40 / /srv/kubelet/pods/a/volumes/data rw - nfs4 server:/x rw\n"+
		"31 21 0:40 /b /srv/kubelet/pods/b/volumes/data rw - nfs4 server:/x rw\n"+
		"32 21 0:41 / /srv/kubelet/pods/a/volumes/token rw - tmpfs tmpfs rw\n"+
		"33 21 0:42 / /home rw - nfs4 server:/home rw\n")
}

func (w *world) write(path, text string) {
	w.t.Helper()
	path = filepath.Join(w.opts.FS, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(path string) {
	w.t.Helper()
	if err := os.RemoveAll(filepath.Join(w.opts.FS, path)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sysctl(name, value string) {
	w.t.Helper()
	path := "/proc/sys/"
	for _, r := range name {
		if r == '.' {
			r = '/'
		}
		path += string(r)
	}
	w.write(path, value+"\n")
}

func (w *world) kubelet(config string) { w.write("/etc/kubelet.yaml", config) }

// examine returns what was found that is not well.
func (w *world) examine() (bad []Finding, all Report) {
	w.t.Helper()
	all = Examine(w.t.Context(), w.opts)
	for _, f := range all.Findings {
		if f.Severity.Worse(Unknown) && f.Remedy == "" {
			w.t.Errorf("%+v has no remedy", f)
		}
		if f.Severity != OK {
			bad = append(bad, f)
		}
	}
	return bad, all
}
