package installer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// node is a made-up node: a root directory, and services whose calls it writes down. fail and kill name the call
// that fails, or that the installer does not survive.
type node struct {
	root  string
	calls []string
	fail  map[string]error
	kill  int // of so many calls the last one ends the installer; 0 is none
}

const kubeletConfig = `# by hand
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock # the old one
maxPods: 250
`

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{root: t.TempDir(), fail: map[string]error{}}
	n.write(t, "/var/lib/kubelet/config.yaml", kubeletConfig)
	n.write(t, "/var/lib/kubelet/kubeadm-flags.env",
		`KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/containerd/containerd.sock --node-ip=10.0.0.1"`+"\n")
	n.write(t, "/source/userns-shim", "program 1")
	n.write(t, "/source/userns-shim-init", "init 1")
	return n
}

func (n *node) write(t *testing.T, name, text string) {
	t.Helper()
	full := filepath.Join(n.root, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (n *node) read(name string) string {
	data, err := os.ReadFile(filepath.Join(n.root, name))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// tree is every file with its mode and text, but for what the installer keeps for itself.
func (n *node) tree(t *testing.T) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(n.root, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, n.root)
		if err != nil || d.IsDir() || strings.HasPrefix(name, "/var/lib/userns-shim/") || name == ConfigPath {
			return err
		}
		info, err := d.Info()
		out = append(out, fmt.Sprintf("%s %v %q", name, info.Mode(), n.read(name)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

var errKilled = errors.New("killed")

// call writes a call down, and gives it its end.
func (n *node) call(name string, unit ...string) error {
	name = strings.Join(append([]string{name}, unit...), " ")
	n.calls = append(n.calls, name)
	if n.kill > 0 && len(n.calls) == n.kill {
		panic(errKilled)
	}
	return n.fail[name]
}

func (n *node) Reload(context.Context) error                 { return n.call("reload") }
func (n *node) Enable(_ context.Context, unit string) error  { return n.call("enable", unit) }
func (n *node) Disable(_ context.Context, unit string) error { return n.call("disable", unit) }
func (n *node) Restart(_ context.Context, unit string) error { return n.call("restart", unit) }
func (n *node) Stop(_ context.Context, unit string) error    { return n.call("stop", unit) }
func (n *node) Ready(_ context.Context, socket string) error { return n.call("ready", n.short(socket)) }

func (n *node) RemovePods(_ context.Context, socket string) error {
	return n.call("remove pods", n.short(socket))
}

func (n *node) short(socket string) string { return filepath.Base(strings.TrimPrefix(socket, n.root)) }

func (n *node) options() Options {
	return Options{
		Root: n.root, Source: filepath.Join(n.root, "source"), BinDir: "/usr/local/bin", Version: "v1",
		ServiceFile: []byte("[Service]\n"), Config: []byte("kind: Config\n"),
		Endpoint: "unix:///run/userns-shim/userns-shim.sock", KubeletConfig: "/var/lib/kubelet/config.yaml",
		Timeout: time.Second, Settle: 0, Systemd: n, Runtimes: n,
		GiveIDs:        func(context.Context) error { return n.call("give ids") },
		Check:          func(context.Context) error { return n.call("check") },
		KubeletHealthy: func(context.Context) error { return n.call("kubelet healthy") },
	}
}

// run is a process of the installer; it ends where a call kills it.
func (n *node) run(t *testing.T, opts Options, do func(*Installer, context.Context) error) (err error) {
	t.Helper()
	n.calls = nil
	defer func() {
		switch r := recover().(type) {
		case nil:
		case error:
			err = r
		default:
			panic(r)
		}
	}()
	i, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return do(i, t.Context())
}

func (n *node) install(t *testing.T) error   { return n.run(t, n.options(), (*Installer).Install) }
func (n *node) uninstall(t *testing.T) error { return n.run(t, n.options(), (*Installer).Uninstall) }

// wantInstalled holds what Install promises.
func (n *node) wantInstalled(t *testing.T) {
	t.Helper()
	for name, want := range map[string]string{
		"/usr/local/bin/userns-shim": "program 1", "/usr/local/bin/userns-shim-init": "init 1",
		servicePath: "[Service]\n", ConfigPath: "kind: Config\n",
		"/var/lib/kubelet/config.yaml":       strings.Replace(kubeletConfig, "containerd/containerd", "userns-shim/userns-shim", 1),
		"/var/lib/kubelet/kubeadm-flags.env": `KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/userns-shim/userns-shim.sock --node-ip=10.0.0.1"` + "\n",
	} {
		if got := n.read(name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	if info, err := os.Stat(filepath.Join(n.root, "/usr/local/bin/userns-shim")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the program is %v, %v", info, err)
	}
}

// TestInstallInOrder: kubelet does not run while its endpoint changes, and is switched only when userns-shim has
// shown that it runs pods.
func TestInstallInOrder(t *testing.T) {
	n := newNode(t)
	before := n.tree(t)
	if err := n.install(t); err != nil {
		t.Fatal(err)
	}
	n.wantInstalled(t)
	want := []string{
		"give ids", "reload", "enable " + Unit, "restart " + Unit, "ready userns-shim.sock", "check",
		"stop kubelet.service", "remove pods containerd.sock", "reload", "restart kubelet.service", "kubelet healthy",
	}
	if !slices.Equal(n.calls, want) {
		t.Errorf("calls\n%q, want\n%q", n.calls, want)
	}

	if err := n.install(t); err != nil || !slices.Equal(n.calls, []string{"ready userns-shim.sock"}) {
		t.Errorf("once more: %v, %q", err, n.calls)
	}

	if err := n.uninstall(t); err != nil {
		t.Fatal(err)
	}
	want = []string{
		"stop kubelet.service", "remove pods userns-shim.sock", "reload", "restart kubelet.service", "kubelet healthy",
		"stop " + Unit, "disable " + Unit, "reload",
	}
	if !slices.Equal(n.calls, want) {
		t.Errorf("calls of uninstall\n%q, want\n%q", n.calls, want)
	}
	if after := n.tree(t); after != before {
		t.Errorf("after uninstall the node has\n%s\nbefore\n%s", after, before)
	}
	if err := n.uninstall(t); err != nil || len(n.calls) > 0 {
		t.Errorf("uninstall once more: %v, %q", err, n.calls)
	}
}

// TestEveryFailureIsRolledBack, whatever fails: then the node is as it was, kubelet runs with its runtime, and the
// same version is not tried again until somebody says so.
func TestEveryFailureIsRolledBack(t *testing.T) {
	for _, name := range []string{
		"give ids", "enable " + Unit, "restart " + Unit, "ready userns-shim.sock", "check", "remove pods containerd.sock",
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.write(t, "/usr/local/bin/userns-shim", "by hand")
			before := n.tree(t)
			n.fail[name] = errors.New("broken")
			if err := n.install(t); !errors.Is(err, ErrRolledBack) || !strings.Contains(err.Error(), "broken") {
				t.Fatalf("install says %v", err)
			}
			if after := n.tree(t); after != before {
				t.Errorf("the node has\n%s\nbefore\n%s", after, before)
			}
			if slices.Contains(n.calls, "stop kubelet.service") && !slices.Contains(n.calls, "restart kubelet.service") {
				t.Errorf("kubelet was stopped only: %q", n.calls)
			}
			if err := n.install(t); !errors.Is(err, ErrFailedBefore) || len(n.calls) > 0 || !errors.Is(Refusal(n.root, "v1"), ErrFailedBefore) || Refusal(n.root, "v2") != nil {
				t.Errorf("the next attempt: %v, %q", err, n.calls)
			}
			delete(n.fail, name)
			opts := n.options()
			opts.Retry = true
			if err := n.run(t, opts, (*Installer).Install); err != nil {
				t.Errorf("a retry: %v", err)
			}
			n.wantInstalled(t)
			if err := Refusal(n.root, "v1"); err != nil {
				t.Errorf("the failure is still written down: %v", err)
			}
		})
	}
}

// TestKubeletThatDoesNotLikeItsRuntime is one that fails with userns-shim and works again with the old runtime.
func TestKubeletThatDoesNotLikeItsRuntime(t *testing.T) {
	for name, tc := range map[string]struct {
		healthyAtFirst bool
		settle         time.Duration
	}{
		"never healthy":                         {false, 3 * pollInterval},
		"not for long":                          {true, 3 * pollInterval},
		"not for long, on a machine that halts": {true, time.Nanosecond},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			before := n.tree(t)
			opts := n.options()
			opts.Settle = tc.settle
			asked := 0
			opts.KubeletHealthy = func(context.Context) error {
				asked++
				if strings.Contains(n.read("/var/lib/kubelet/config.yaml"), "containerd.sock") || tc.healthyAtFirst && asked == 1 {
					return nil
				}
				return errors.New("no runtime")
			}
			if err := n.run(t, opts, (*Installer).Install); !errors.Is(err, ErrRolledBack) || !strings.Contains(err.Error(), "no runtime") {
				t.Fatalf("install says %v", err)
			}
			if after := n.tree(t); after != before {
				t.Errorf("the node has\n%s\nbefore\n%s", after, before)
			}
			if !slices.Contains(n.calls, "remove pods userns-shim.sock") {
				t.Errorf("pods that kubelet ran meanwhile are left: %q", n.calls)
			}
		})
	}
}

// TestKilledAnywhere ends the installer at each of its calls. The next run installs, and uninstalling after that, or
// at once, gives the node back.
func TestKilledAnywhere(t *testing.T) {
	whole := newNode(t)
	if err := whole.install(t); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= len(whole.calls); at++ {
		for _, again := range []bool{true, false} {
			n := newNode(t)
			before := n.tree(t)
			n.kill = at
			if err := n.install(t); !errors.Is(err, errKilled) {
				t.Fatalf("killed at call %d: %v", at, err)
			}
			n.kill = 0
			if again {
				if err := n.install(t); err != nil {
					t.Errorf("after a kill at call %d: %v", at, err)
				}
				n.wantInstalled(t)
			}
			if err := n.uninstall(t); err != nil {
				t.Errorf("uninstall after a kill at call %d: %v", at, err)
			}
			if after := n.tree(t); after != before {
				t.Errorf("killed at call %d (%s), again %t: the node has\n%s\nbefore\n%s", at, whole.calls[at-1], again, after, before)
			}
		}
	}
}

// TestUpgrade replaces programs under pods that live on; kubelet is not touched. One that does not start is taken back, and
// uninstalling brings back what was there before the first version.
func TestUpgrade(t *testing.T) {
	n := newNode(t)
	n.write(t, "/usr/local/bin/userns-shim", "by hand")
	before := n.tree(t)
	if err := n.install(t); err != nil {
		t.Fatal(err)
	}
	n.write(t, "/source/userns-shim", "program 2")
	opts := n.options()
	opts.Version = "v2"
	if err := n.run(t, opts, (*Installer).Install); err != nil {
		t.Fatal(err)
	}
	if got := n.read("/usr/local/bin/userns-shim"); got != "program 2" || slices.ContainsFunc(n.calls, func(c string) bool { return strings.Contains(c, "kubelet") || strings.Contains(c, "pods") }) {
		t.Errorf("the program is %q, calls %q", got, n.calls)
	}
	n.write(t, "/source/userns-shim", "program 3")
	opts.Version = "v3"
	opts.Runtimes = programFails{n, "program 3"}
	opts.Timeout = pollInterval / 2
	if err := n.run(t, opts, (*Installer).Install); !errors.Is(err, ErrRolledBack) {
		t.Errorf("a version that does not start: %v", err)
	}
	if got := n.read("/usr/local/bin/userns-shim"); got != "program 2" {
		t.Errorf("after the rollback the program is %q", got)
	}
	n.write(t, "/source/userns-shim", "program 1")
	if err := n.uninstall(t); err != nil {
		t.Fatal(err)
	}
	if after := n.tree(t); after != before {
		t.Errorf("after uninstall the node has\n%s\nbefore\n%s", after, before)
	}
}

// programFails is a runtime that is not ready while a program is installed.
type programFails struct {
	*node
	program string
}

func (f programFails) Ready(ctx context.Context, socket string) error {
	if f.read("/usr/local/bin/userns-shim") == f.program {
		return errors.New("not ready")
	}
	return f.node.Ready(ctx, socket)
}

// TestUninstallKeepsTheProgramsWhilePodsAreLeft, because nothing else can remove them.
func TestUninstallKeepsTheProgramsWhilePodsAreLeft(t *testing.T) {
	n := newNode(t)
	if err := n.install(t); err != nil {
		t.Fatal(err)
	}
	n.fail["remove pods userns-shim.sock"] = errors.New("stuck")
	if err := n.uninstall(t); err == nil || !strings.Contains(err.Error(), "stuck") {
		t.Errorf("uninstall says %v", err)
	}
	if got := n.read("/usr/local/bin/userns-shim"); got != "program 1" {
		t.Errorf("the program: %s", got)
	}
	if got := n.read("/var/lib/kubelet/config.yaml"); got != kubeletConfig {
		t.Errorf("kubelet has not got its runtime back: %s", got)
	}
	delete(n.fail, "remove pods userns-shim.sock")
	if err := n.uninstall(t); err != nil {
		t.Errorf("uninstall again: %v", err)
	}
}
