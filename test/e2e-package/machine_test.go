package e2epackage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit"
)

// machineEnv is set in the virtual machine of the e2e-vm tier, where a test may install things.
const machineEnv = "USERNS_SHIM_E2E_VM"

// patience is how long an emulated machine may take for one thing.
const patience = 2 * time.Minute

// machine is a node with systemd and containerd as its services, and a registry.
type machine struct {
	runtime  runtimeapi.RuntimeServiceClient
	images   runtimeapi.ImageServiceClient
	registry *labimage.Registry
	image    string // a reference that can be pulled
	box      labimage.Box
}

const containerdUnit = `[Service]
Type=notify
ExecStart=%[1]s/containerd --config /etc/containerd/config.toml
Environment=PATH=%[1]s:/usr/sbin:/usr/bin:/sbin:/bin
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
OOMScoreAdjust=-999
`

// plugin says whether containerd's own CRI plugin is on.
type plugin bool

const (
	withPlugin    plugin = true
	withoutPlugin plugin = false
)

// containerdConfig is a configuration file. The image is what the plugin keeps a sandbox's namespaces open with.
func containerdConfig(cri plugin, image string) string {
	if cri {
		return fmt.Sprintf(`version = 3
disabled_plugins = ["io.containerd.nri.v1.nri"]
[plugins.'io.containerd.cri.v1.images']
  pinned_images.sandbox = %q
  registry.config_path = "/etc/containerd/certs.d"
`, image)
	}
	return `version = 3
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", "io.containerd.nri.v1.nri"]
`
}

const networkConfig = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{
  "type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.89.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
}]}
`

// startMachine makes the machine a node as userns-shim's default configuration expects it, until the test ends.
func startMachine(t *testing.T, cri plugin) *machine {
	t.Helper()
	if os.Getenv(machineEnv) == "" {
		t.Skip("installs packages and services on the machine itself (make e2e-vm has one for that)")
	}
	bin := filepath.Dir(testkit.RequireBin(t, "containerd"))
	m := &machine{}
	t.Cleanup(func() { m.takeApart(t) })
	m.serveImage(t)
	for name, text := range map[string]string{
		"/etc/systemd/system/containerd.service": fmt.Sprintf(containerdUnit, bin),
		"/etc/containerd/config.toml":            containerdConfig(cri, m.image),
		"/etc/cni/net.d/10-pods.conflist":        networkConfig,
	} {
		writeFile(t, name, text)
	}
	if err := os.MkdirAll("/opt/cni", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(bin, "cni"), "/opt/cni/bin"); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "start", "containerd.service")
	retry := backoff.DefaultConfig
	retry.MaxDelay = time.Second
	conn, err := grpc.NewClient("unix:///run/userns-shim/userns-shim.sock", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: patience}),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m.runtime, m.images = runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
	return m
}

func (m *machine) serveImage(t *testing.T) {
	t.Helper()
	var err error
	if m.registry, err = labimage.NewRegistry(nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.registry.Close() })
	if m.box, err = labimage.FindBox(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.image = m.push(t, labimage.Demo, labimage.Catalogue(m.box)[labimage.Demo])
	if err := labimage.WriteHosts("/etc/containerd/certs.d", labimage.DefaultHost, m.registry.Addr()); err != nil {
		t.Fatal(err)
	}
}

// push returns the reference by which an image can be pulled.
func (m *machine) push(t *testing.T, name string, spec labimage.Spec) string {
	t.Helper()
	image, err := labimage.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.registry.Push(t.Context(), name, image); err != nil {
		t.Fatal(err)
	}
	return m.registry.Ref(name)
}

// services are those that a test may have started, in the order in which they are stopped.
var services = []string{"kubelet.service", "userns-shim.service", "containerd.service"}

// takeApart stops what tests start and removes what they install, for tests that come after.
func (m *machine) takeApart(t *testing.T) {
	t.Helper()
	try := func(name string, args ...string) {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Logf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
		}
	}
	for _, service := range services {
		try("systemctl", "stop", service)
		try("rm", "-f", filepath.Join("/etc/systemd/system", service))
	}
	try("rm", "-rf", "/etc/containerd", "/etc/cni", "/opt/cni", "/etc/kubernetes", "/etc/userns-shim", "/var/lib/userns-shim/install")
	try("systemctl", "daemon-reload")
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// pod is a pod with a user namespace.
type pod struct {
	*machine
	id     string
	config *runtimeapi.PodSandboxConfig
}

func (m *machine) runPod(t *testing.T) *pod {
	t.Helper()
	if _, err := m.images.PullImage(limited(t), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: m.image}}); err != nil {
		t.Fatal(err)
	}
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "e2e", Uid: "package"},
		Hostname:     "pod",
		LogDirectory: t.TempDir(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: "/usernspackage.slice/usernspackage-pod.slice",
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
				Pid:           runtimeapi.NamespaceMode_CONTAINER,
				UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD},
			}},
		},
	}
	resp, err := m.runtime.RunPodSandbox(limited(t), &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return &pod{machine: m, id: resp.PodSandboxId, config: config}
}

// run starts a container that runs a shell script, with the host's directory volume at /vol.
func (p *pod) run(t *testing.T, name, script, volume string) (id string) {
	t.Helper()
	created, err := p.runtime.CreateContainer(limited(t), &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.id, SandboxConfig: p.config,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name},
			Image:    &runtimeapi.ImageSpec{Image: p.image},
			Command:  []string{"sh", "-c", script},
			LogPath:  name + ".log",
			Mounts:   []*runtimeapi.Mount{{HostPath: volume, ContainerPath: "/vol"}},
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: p.config.Linux.SecurityContext.NamespaceOptions,
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.runtime.StartContainer(limited(t), &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		t.Fatal(err)
	}
	return created.ContainerId
}

func (p *pod) status(t *testing.T, id string) *runtimeapi.ContainerStatus {
	t.Helper()
	resp, err := p.runtime.ContainerStatus(limited(t), &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status
}

// log are the lines of a container's log.
func (p *pod) log(t *testing.T, name string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.config.LogDirectory, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// exec runs a command in a container and returns its output.
func (p *pod) exec(t *testing.T, id string, argv ...string) string {
	t.Helper()
	resp, err := p.runtime.ExecSync(limited(t), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: argv, Timeout: 60})
	if err != nil || resp.ExitCode != 0 {
		t.Fatalf("exec %v: %v, exit code %d: %s", argv, err, resp.GetExitCode(), resp.GetStderr())
	}
	return strings.TrimSpace(string(resp.Stdout))
}

func (m *machine) wantVersion(t *testing.T, want version) {
	t.Helper()
	got, err := m.runtime.Version(limited(t), &runtimeapi.VersionRequest{})
	if err != nil || got.RuntimeVersion != want.program {
		t.Errorf("CRI says version %s, %v; want %s", got.GetRuntimeVersion(), err, want.program)
	}
}

// property is what systemd says of the service.
func property(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "systemctl", "show", "--property", name, "--value", "userns-shim.service"))
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	eventuallyWithin(t, patience, what, holds)
}

func eventuallyWithin(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	began := time.Now()
	for time.Since(began) < limit {
		if holds() {
			t.Logf("after %s: %s", time.Since(began).Round(time.Second), what)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	ours, _ := exec.Command("journalctl", "--no-pager", "-n", "100", "-u", "userns-shim*").CombinedOutput()
	kubelets, _ := exec.Command("journalctl", "--no-pager", "-n", "50", "-u", "kubelet.service").CombinedOutput() // it says much
	t.Fatalf("after %s not yet: %s\n%s\n%s", limit, what, ours, kubelets)
}
