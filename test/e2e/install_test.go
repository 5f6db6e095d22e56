package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/installer"
	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// installMachine is a machine of the test's own, with systemd, containerd with its CRI plugin and a kubelet that does no more
// than ask its runtime whether it is ready.
type installMachine struct {
	containerd *labnode.Containerd
	image      string
	kubelet    string // its configuration file
}

const (
	// kubeletStubEnv makes the test binary such a kubelet: a configuration file, and a file that makes it unwell.
	kubeletStubEnv = "USERNS_SHIM_E2E_KUBELET"
	healthzAddr    = "127.0.0.1:10248"
	ourEndpoint    = "unix:///run/userns-shim/userns-shim.sock"
)

// TestInstallOnAMachineWithSystemd installs by a service of the machine, as the DaemonSet does: first with a kubelet that does
// not work with userns-shim, which is rolled back, then for good, again as an upgrade, and off again.
func TestInstallOnAMachineWithSystemd(t *testing.T) {
	if os.Getenv("USERNS_SHIM_E2E_VM") == "" {
		t.Skip("it changes the services of its machine, so it is for make e2e-vm alone")
	}
	m := newInstallMachine(t)
	before := m.state(t)
	m.runOldPod(t)

	m.unwell(t, true)
	out, err := m.command(t, "install", "--root", "/", "--detach", "--selftest=false", "--settle", "2s", "--timeout", "40s")
	if err == nil || !strings.Contains(out, "kubelet is not ready") {
		t.Errorf("install under a kubelet that is unwell: %v\n%s", err, out)
	}
	if after := m.state(t); after != before {
		t.Errorf("after the rollback:\n%s\nbefore:\n%s", after, before)
	}
	m.unwell(t, false)
	if out, err := m.command(t, "install", "--root", "/", "--detach", "--selftest=false"); err == nil || !strings.Contains(out, "rolled back on this node before") {
		t.Errorf("a second attempt: %v\n%s", err, out)
	}

	m.runOldPod(t)
	m.must(t, "install", "--root", "/", "--detach", "--selftest=false", "--settle", "2s", "--retry")
	m.wantInstalled(t)
	m.must(t, "install", "--root", "/", "--detach", "--selftest=false", "--settle", "2s")
	m.wantInstalled(t)
	m.runPod(t, ourEndpoint)

	m.must(t, "uninstall", "--root", "/", "--detach", "--settle", "2s")
	if after := m.state(t); after != before {
		t.Errorf("after uninstall:\n%s\nbefore:\n%s", after, before)
	}
	if out, err := exec.CommandContext(t.Context(), "getsubids", "kubelet").CombinedOutput(); err != nil || !strings.Contains(string(out), "2013265920 100532224") {
		t.Errorf("kubelet's ids: %v: %s", err, out)
	}
	m.runOldPod(t)
}

func newInstallMachine(t *testing.T) *installMachine {
	t.Helper()
	tools := nodetest.Tools(t)
	t.Cleanup(func() { takeApart(t) })
	for _, dir := range []string{"/etc/containerd", "/var/lib/kubelet", "/run/e2e"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Services have no other PATH than the machine's.
	if err := os.Symlink(tools.Path("runc"), "/usr/local/bin/runc"); err != nil {
		t.Fatal(err)
	}
	// The demo image does for a sandbox's too.
	m := &installMachine{kubelet: "/var/lib/kubelet/config.yaml", image: nodetest.ServeDemo(t, nil, labimage.Demo).Ref(labimage.Demo)}
	dir, err := os.MkdirTemp("/tmp", "uslc-")
	if err != nil {
		t.Fatal(err)
	}
	m.containerd, err = labnode.StartContainerd(t.Context(), labnode.ContainerdOptions{
		Tools: tools, Dir: dir, WithCRI: true, ExtraConfig: criConfig(t, tools, dir, m.image),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.containerd.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	m.copyConfig(t)
	m.startKubelet(t)
	t.Log("containerd and kubelet run")
	return m
}

// takeApart removes what an uninstallation keeps and what the test itself adds, for the tests after it.
func takeApart(t *testing.T) {
	t.Helper()
	const script = `systemctl stop kubelet userns-shim
rm -rf /etc/systemd/system/kubelet.service /etc/containerd /var/lib/kubelet /etc/userns-shim /var/lib/userns-shim/install /usr/local/bin/runc
systemctl daemon-reload`
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Errorf("take the machine apart: %v: %s", err, out)
	}
}

func (m *installMachine) copyConfig(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(m.containerd.ConfigPath())
	if err == nil {
		err = os.WriteFile("/etc/containerd/config.toml", text, 0o600)
	}
	if err == nil {
		err = os.WriteFile(m.kubelet, []byte("kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix://"+m.containerd.Address+"\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *installMachine) startKubelet(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := fmt.Sprintf("[Service]\nEnvironment=%s=%s\nExecStart=%s\n", kubeletStubEnv, m.kubelet, self)
	if err := os.WriteFile("/etc/systemd/system/kubelet.service", []byte(unit), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"daemon-reload"}, {"restart", "kubelet"}} {
		if out, err := exec.CommandContext(t.Context(), "systemctl", args...).CombinedOutput(); err != nil {
			t.Fatalf("systemctl %s: %v: %s", args, err, out)
		}
	}
}

// kubeletStub serves /healthz, which is well while the runtime of its configuration is ready. With a file of
// the name of the configuration and .unwell it works with its first runtime only.
func kubeletStub(file string) error {
	handler := func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(file)
		_, endpoint, _ := strings.Cut(string(text), "containerRuntimeEndpoint: ")
		endpoint = strings.TrimSpace(endpoint)
		if _, unwell := os.Stat(file + ".unwell"); unwell == nil && endpoint == ourEndpoint {
			err = fmt.Errorf("unwell with %s", endpoint)
		}
		if err == nil {
			err = asksReady(r, endpoint)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
	return http.ListenAndServe(healthzAddr, http.HandlerFunc(handler))
}

func asksReady(r *http.Request, endpoint string) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	status, err := runtimeapi.NewRuntimeServiceClient(conn).Status(r.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range status.GetStatus().GetConditions() {
		if c.GetType() == runtimeapi.RuntimeReady && !c.GetStatus() {
			return fmt.Errorf("not ready: %s", c.GetMessage())
		}
	}
	return nil
}

func (m *installMachine) unwell(t *testing.T, yes bool) {
	t.Helper()
	name := m.kubelet + ".unwell"
	err := os.Remove(name)
	if yes {
		err = os.WriteFile(name, nil, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *installMachine) command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	began := time.Now()
	out, err := exec.CommandContext(t.Context(), shared.programs(t).daemon, args...).CombinedOutput()
	t.Logf("userns-shim %s: %s, %v", args[0], time.Since(began).Round(time.Millisecond), err)
	return string(out), err
}

func (m *installMachine) must(t *testing.T, args ...string) {
	t.Helper()
	out, err := m.command(t, args...)
	if err != nil {
		log, _ := exec.CommandContext(t.Context(), "journalctl", "-n", "60", "--no-pager").CombinedOutput()
		t.Fatalf("%s: %v: %s\n%s", args, err, out, log)
	}
}

// state is what the machine has of all that is installed, and what kubelet is told.
func (m *installMachine) state(t *testing.T) string {
	t.Helper()
	var out []string
	for _, name := range []string{"/usr/local/bin/userns-shim", "/usr/local/bin/userns-shim-init", "/etc/systemd/system/userns-shim.service"} {
		_, err := os.Lstat(name)
		out = append(out, fmt.Sprintf("%s: %t", name, err == nil))
	}
	text, err := os.ReadFile(m.kubelet)
	if err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/etc/systemd/system/*.wants/userns-shim.service")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(append(out, string(text), fmt.Sprint(links), "userns-shim "+active(t, "userns-shim"), "kubelet "+active(t, "kubelet"), healthz(t)), "\n")
}

func active(t *testing.T, unit string) string {
	t.Helper()
	out, _ := exec.CommandContext(t.Context(), "systemctl", "is-active", unit).Output() // its exit status says the same
	return strings.TrimSpace(string(out))
}

func healthz(t *testing.T) string {
	t.Helper()
	var last string
	for range 100 {
		resp, err := http.Get("http://" + healthzAddr + "/healthz")
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return "well"
			}
			err = fmt.Errorf("%s: %s", resp.Status, body)
		}
		last = err.Error()
		time.Sleep(100 * time.Millisecond)
	}
	return last
}

// wantInstalled: the service runs, kubelet is well with it, no pod of the old runtime is left, and the configuration is
// that of the machine's containerd.
func (m *installMachine) wantInstalled(t *testing.T) {
	t.Helper()
	if got := active(t, "userns-shim"); got != "active" {
		t.Errorf("userns-shim is %s", got)
	}
	if text, err := os.ReadFile(m.kubelet); err != nil || !strings.Contains(string(text), ourEndpoint) || healthz(t) != "well" {
		t.Errorf("kubelet is told %s, %v, and is %s", text, err, healthz(t))
	}
	cfg, err := config.Load(installer.ConfigPath)
	if err != nil || cfg.Containerd.Address != m.containerd.Address || len(cfg.CNI.BinDirs) != 1 || cfg.CNI.BinDirs[0] != nodetest.Tools(t).CNI() {
		t.Errorf("the configuration is %+v, %v", cfg, err)
	}
	if pods := m.pods(t, "unix://"+m.containerd.Address); len(pods) > 0 {
		t.Errorf("containerd's CRI plugin still has the pods %v", pods)
	}
}

func (m *installMachine) runOldPod(t *testing.T) {
	t.Helper()
	m.runPod(t, "unix://"+m.containerd.Address)
}

// runPod leaves a pod with a running container on a runtime; the installer removes it.
func (m *installMachine) runPod(t *testing.T, endpoint string) {
	t.Helper()
	conn := dialCRI(t, endpoint)
	runtime, images := runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
	uid := rand.Text()
	pod := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "installed", Namespace: "e2e", Uid: uid},
		LogDirectory: t.TempDir(),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/e2einstall/" + uid},
	}
	sandbox, err := runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: pod})
	if err != nil {
		t.Fatalf("run a pod on %s: %v", endpoint, err)
	}
	image := &runtimeapi.ImageSpec{Image: m.image}
	if _, err := images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: image}); err != nil {
		t.Fatal(err)
	}
	c, err := runtime.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: sandbox.GetPodSandboxId(), SandboxConfig: pod,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: image, LogPath: "c.log",
			Command: []string{"sh", "-c", "trap exit TERM; while :; do sleep 1; done"}, Linux: &runtimeapi.LinuxContainerConfig{},
		},
	})
	if err != nil {
		t.Fatalf("create a container on %s: %v", endpoint, err)
	}
	if _, err := runtime.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c.GetContainerId()}); err != nil {
		t.Fatalf("start a container on %s: %v", endpoint, err)
	}
}

func (m *installMachine) pods(t *testing.T, endpoint string) []*runtimeapi.PodSandbox {
	t.Helper()
	resp, err := runtimeapi.NewRuntimeServiceClient(dialCRI(t, endpoint)).ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetItems()
}

func dialCRI(t *testing.T, endpoint string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
