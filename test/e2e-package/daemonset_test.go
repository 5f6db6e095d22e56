package e2epackage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"github.com/userns-shim/userns-shim/internal/installer"
	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit"
)

const (
	manifestsDir = "../../manifests/base"
	staticPods   = "/etc/kubernetes/manifests"

	kubeletFile = "/var/lib/kubelet/config.yaml"

	installedShim  = "/usr/local/bin/userns-shim"
	installerReady = "http://127.0.0.1:9465/readyz"
	removerReady   = "http://127.0.0.1:9466/readyz"
	// changeover is how long an emulated machine may take to exchange its runtime.
	changeover = 8 * time.Minute
)

const kubeletUnit = `[Service]
ExecStart=%s --config=/var/lib/kubelet/config.yaml --hostname-override=node --node-ip=192.0.2.1
Restart=always
RestartSec=1
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
staticPodPath: ` + staticPods + `
fileCheckFrequency: 1s
resolvConf: ""
failSwapOn: false
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
`

// TestDaemonSetsPodsInstallAndUninstall runs the pods of the two DaemonSets on a kubelet with containerd's CRI plugin, as static pods
// and so without what only an API server has: the service account, and a ConfigMap, for which a directory stands. The first
// installer's ConfigMap is wrong, and the node stays as it is. The second installer and the uninstaller end their own runtime
// and have to come up on the other one, and so has a pod that is there for something else.
func TestDaemonSetsPodsInstallAndUninstall(t *testing.T) {
	m := startMachine(t, withPlugin)
	plugin := m.pluginRuntime(t)
	image := m.pushInstaller(t)
	m.writeStaticPod(t, bystander(m.image))
	good := readFile(t, filepath.Join(manifestsDir, "config.yaml"))
	m.writeStaticPod(t, daemonSetsPod{file: "installer.yaml", image: image, config: good + noContainerd, args: []string{"--timeout=20s"}}.pod(t))
	m.startKubelet(t)
	t.Cleanup(func() {
		// Otherwise it would make them again.
		if out, err := exec.Command("systemctl", "stop", "kubelet.service").CombinedOutput(); err != nil {
			t.Errorf("stop kubelet: %v: %s", err, out)
		}
		removePods(t, plugin)
	})

	wantRolledBack(t)
	if !running(plugin, "bystander") {
		t.Error("the pod that is there for something else does not run after the rollback")
	}

	m.writeStaticPod(t, daemonSetsPod{file: "installer.yaml", image: image, config: good, args: []string{"--retry"}}.pod(t))
	eventuallyWithin(t, changeover, "the installer's pod is ready on userns-shim", func() bool {
		return answersWell(installerReady) && running(m.runtime, "agent") && running(m.runtime, "bystander")
	})
	if left, err := plugin.ListPodSandbox(limited(t), &runtimeapi.ListPodSandboxRequest{}); err != nil || len(left.GetItems()) > 0 {
		t.Errorf("containerd's CRI plugin has the pods %v, %v", left.GetItems(), err)
	}
	if got := readFile(t, installer.ConfigPath); got != good {
		t.Errorf("the node's configuration is\n%s\nwant that of the ConfigMap\n%s", got, good)
	}
	if ids := run(t, "getsubids", "kubelet"); !strings.Contains(ids, "2013265920 100532224") {
		t.Errorf("kubelet's ids are %s", ids)
	}

	if err := os.Remove(filepath.Join(staticPods, "userns-shim-installer.json")); err != nil {
		t.Fatal(err)
	}
	m.writeStaticPod(t, daemonSetsPod{file: "uninstaller.yaml", image: image}.pod(t))
	eventuallyWithin(t, changeover, "the uninstaller's pod is ready on containerd's CRI plugin", func() bool {
		return answersWell(removerReady) && running(plugin, "done") && running(plugin, "bystander")
	})
	wantNotInstalled(t)
}

// noContainerd is the end of a configuration with which userns-shim runs and does not become ready.
const noContainerd = "containerd:\n  address: /run/containerd/mistyped.sock\n"

// wantRolledBack waits until the installer has taken the node back and refuses to try again, which its log says.
func wantRolledBack(t *testing.T) {
	t.Helper()
	var log string
	eventuallyWithin(t, changeover, "the installer refuses to try again what was rolled back", func() bool {
		files, _ := filepath.Glob("/var/log/pods/userns-shim_userns-shim-installer-*/install/*.log")
		log = ""
		for _, name := range files {
			text, _ := os.ReadFile(name)
			log += string(text)
		}
		// The attempt that fails says so after what systemd says of its job; the next one says nothing else.
		return strings.Contains(log, "userns-shim: "+installer.ErrFailedBefore.Error()+": userns-shim is not ready after 20s")
	})
	t.Logf("the log of the pod's container:\n%s", log)
	wantNotInstalled(t)
	if _, err := os.Lstat(installer.ConfigPath); err == nil {
		t.Errorf("%s is there after the rollback", installer.ConfigPath)
	}
}

func wantNotInstalled(t *testing.T) {
	t.Helper()
	if _, err := os.Lstat(installedShim); err == nil {
		t.Errorf("%s is there", installedShim)
	}
	if got := property(t, "ActiveState"); got != "inactive" {
		t.Errorf("the service is %s", got)
	}
	if got := readFile(t, kubeletFile); got != kubeletConfig {
		t.Errorf("kubelet's configuration is\n%s\nwant\n%s", got, kubeletConfig)
	}
}

// pluginRuntime is the node's CRI through containerd's own plugin.
func (m *machine) pluginRuntime(t *testing.T) runtimeapi.RuntimeServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:///run/containerd/containerd.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return runtimeapi.NewRuntimeServiceClient(conn)
}

// startKubelet starts one that has containerd's CRI plugin as its runtime. It wants an address that is not loopback's.
func (m *machine) startKubelet(t *testing.T) {
	t.Helper()
	writeFile(t, "/etc/systemd/system/kubelet.service", fmt.Sprintf(kubeletUnit, testkit.RequireBin(t, "kubelet")))
	writeFile(t, kubeletFile, kubeletConfig)
	run(t, "ip", "address", "replace", "192.0.2.1/32", "dev", "lo")
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "start", "kubelet.service")
}

// removePods ends the pods of a runtime.
func removePods(t *testing.T, runtime runtimeapi.RuntimeServiceClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	left, err := runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Error(err)
	}
	for _, pod := range left.GetItems() {
		if _, err := runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod.GetId()}); err != nil {
			t.Error(err)
		}
		if _, err := runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.GetId()}); err != nil {
			t.Error(err)
		}
	}
}

// pushInstaller serves the image of manifests/image.
func (m *machine) pushInstaller(t *testing.T) string {
	t.Helper()
	layer := labimage.Layer{labimage.Dir("usr", 0o755), labimage.Dir("usr/bin", 0o755)}
	for _, name := range []string{"userns-shim", "userns-shim-init"} {
		layer = append(layer, labimage.Program("usr/bin/"+name, []byte(readFile(t, testkit.RequireBin(t, name)))))
	}
	return m.push(t, "installer:latest", labimage.Spec{Layers: []labimage.Layer{layer}, Entrypoint: []string{"/usr/bin/userns-shim"}})
}

// daemonSetsPod is the pod of a DaemonSet of the manifests, as far as a kubelet without an API server takes it.
type daemonSetsPod struct {
	file, image string
	config      string   // the ConfigMap's
	args        []string // more arguments for the init container
}

func (d daemonSetsPod) pod(t *testing.T) *corev1.Pod {
	t.Helper()
	var set appsv1.DaemonSet
	if err := yaml.UnmarshalStrict([]byte(readFile(t, filepath.Join(manifestsDir, d.file))), &set); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: set.Spec.Template.ObjectMeta, Spec: set.Spec.Template.Spec}
	pod.Name, pod.Namespace = set.Name, "userns-shim"
	pod.Spec.ServiceAccountName, pod.Spec.NodeSelector = "", nil // this kubelet's node has no labels
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		c.Image = d.image
		// Below Linux 6.3 the self-test fails, for no handler has user namespaces.
		if c.Args[0] == "install" {
			c.Args = append(c.Args, "--selftest=false")
		}
		c.Args = append(c.Args, d.args...)
	}
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Image = d.image
	}
	for i, v := range pod.Spec.Volumes {
		if v.ConfigMap == nil {
			continue
		}
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "config.yaml"), d.config)
		pod.Spec.Volumes[i].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}
	}
	return pod
}

// bystander is a pod that has nothing to do with the installation. It has no user namespace, which kubelet is told only
// kernels from 6.3 on have.
func bystander(image string) *corev1.Pod {
	grace := int64(1)
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		TerminationGracePeriodSeconds: &grace,
		Containers:                    []corev1.Container{{Name: "bystander", Image: image, Command: []string{"sleep", "infinity"}}},
	}}
	pod.Name, pod.Namespace = "bystander", "default"
	return pod
}

func (m *machine) writeStaticPod(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	pod.APIVersion, pod.Kind = "v1", "Pod"
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(staticPods, pod.Name+".json")
	writeFile(t, name, string(text))
	t.Cleanup(func() { _ = os.Remove(name) })
}

// running tells whether a runtime has a running container of this name.
func running(runtime runtimeapi.RuntimeServiceClient, name string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return false
	}
	for _, c := range resp.GetContainers() {
		if c.GetMetadata().GetName() == name && c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			return true
		}
	}
	return false
}

func answersWell(url string) bool {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
