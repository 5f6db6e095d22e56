package e2e

import (
	"context"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// migration is one node that changes its runtime, as docs/operations.md says, with one containerd all the time.
type migration struct {
	*nodetest.Node
	plugin *nodetest.Node // the same node through containerd's CRI plugin
	image  string
	pause  string
}

// TestMigrateFromContainerdsCRIAndBack moves a node over, back and over again. Nothing is pulled anew in either
// direction, and pods of both kinds run before and after.
func TestMigrateFromContainerdsCRIAndBack(t *testing.T) {
	t.Parallel()
	m := newMigration(t)
	m.pullBy(t, m.plugin)
	m.runPods(t, m.plugin)
	images := m.imagesOf(t, m.plugin)
	fetched := m.fetched()
	if fetched == 0 || len(images) == 0 {
		t.Fatalf("the first pull fetched %d things and left the images %v", fetched, images)
	}

	m.writeConfig(t)
	for round := range 2 {
		m.setPlugin(t, false)
		if err := m.Daemon.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		awaitReady(t, m.Node)
		if got := m.imagesOf(t, m.Node); !reflect.DeepEqual(got, images) {
			t.Errorf("round %d: userns-shim lists the images %v, the plugin listed %v", round, got, images)
		}
		m.runPods(t, m.Node)
		m.pullBy(t, m.Node) // as imagePullPolicy: Always
		if got := m.fetched(); got != fetched {
			t.Errorf("round %d: %d blobs and manifests by digest were fetched on userns-shim", round, got-fetched)
		}

		if err := m.Daemon.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.setPlugin(t, true)
		if got := m.imagesOf(t, m.plugin); !reflect.DeepEqual(got, images) {
			t.Errorf("round %d: the plugin lists the images %v, before %v", round, got, images)
		}
		m.runPods(t, m.plugin)
		m.pullBy(t, m.plugin)
		if got := m.fetched(); got != fetched {
			t.Errorf("round %d: %d blobs and manifests by digest were fetched after the way back", round, got-fetched)
		}
	}
}

// TestMigrateToAnotherContainerdNamespace: images are not seen there, but a pull takes their content from the node.
func TestMigrateToAnotherContainerdNamespace(t *testing.T) {
	t.Parallel()
	m := newMigration(t)
	m.pullBy(t, m.plugin)
	m.writeConfig(t)
	text, err := os.ReadFile(m.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(string(text), "namespace: k8s.io", "namespace: userns", 1)
	if err := os.WriteFile(m.Daemon.Config, []byte(other), 0o600); err != nil || other == string(text) {
		t.Fatalf("change the namespace: %v", err)
	}
	if err := m.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, m.Node)
	if got := m.imagesOf(t, m.Node); len(got) != 0 {
		t.Errorf("the other namespace has the images %v", got)
	}
	blobs := m.Registry.RequestsBelow("GET /v2/demo/blobs/")
	if blobs == 0 {
		t.Error("the first pull fetched no blob")
	}
	m.pullBy(t, m.Node)
	if got := m.Registry.RequestsBelow("GET /v2/demo/blobs/"); got != blobs {
		t.Errorf("%d blobs were fetched that the node has", got-blobs)
	}
	m.runPods(t, m.Node)
	m.removeImages(t, m.Node)
}

// newMigration is a node whose containerd has its CRI plugin on and an image, with no userns-shim yet.
func newMigration(t *testing.T) *migration {
	t.Helper()
	n := ownNode(t, labnode.Options{NoDaemon: true})
	m := &migration{
		Node:   n,
		image:  n.Registry.Ref(labimage.Demo),
		pause:  n.Registry.Ref("pause:latest"),
		plugin: &nodetest.Node{Node: n.Node, Engine: n.Engine, Runtime: runtimeapi.NewRuntimeServiceClient(n.Engine), Images: runtimeapi.NewImageServiceClient(n.Engine)},
	}
	for _, name := range []string{labimage.Demo, "pause:latest"} {
		n.PushImage(t, name, labimage.Catalogue(n.Box())[labimage.Demo])
	}
	// The leak check looks at userns-shim's pods and needs it to run.
	t.Cleanup(func() {
		if m.Daemon.Running() {
			return
		}
		if err := m.Daemon.Start(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	m.setPlugin(t, true)
	return m
}

// setPlugin restarts containerd with its CRI plugin on or off.
func (m *migration) setPlugin(t *testing.T, on bool) {
	t.Helper()
	if err := m.Containerd.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := m.Containerd.Configure(func(o *labnode.ContainerdOptions) {
		o.WithCRI, o.ExtraConfig = on, ""
		if on {
			o.ExtraConfig = labnode.PluginConfig{
				Sandbox: m.pause, CertsDir: m.CertsDir, CNIBinDir: nodetest.Tools(t).CNI(), CNIConfDir: m.CNIConfDir(),
			}.TOML()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Containerd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if on {
		awaitPlugin(t, m.plugin.Runtime)
	}
}

// writeConfig gives userns-shim what `config migrate` makes of containerd's file, and the lab's own places.
func (m *migration) writeConfig(t *testing.T) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), shared.programs(t).daemon, "config", "migrate", m.Containerd.ConfigPath()).Output()
	if err != nil {
		t.Fatalf("config migrate: %v", err)
	}
	var migrated, lab map[string]any
	if err := yaml.Unmarshal(out, &migrated); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(m.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &lab); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"containerd":          map[string]any{"address": m.Containerd.Address},
		"cni":                 map[string]any{"binDirs": []any{nodetest.Tools(t).CNI()}, "confDir": m.CNIConfDir()},
		"registry":            map[string]any{"configPath": m.CertsDir},
		"cgroupDriver":        "cgroupfs",
		"restrictOOMScoreAdj": true,
	} {
		if !reflect.DeepEqual(migrated[key], want) {
			t.Errorf("config migrate says %s: %v, want %v", key, migrated[key], want)
		}
		delete(lab, key)
	}
	for _, own := range []string{"apiVersion", "kind", "nri"} {
		delete(migrated, own)
	}
	for key, v := range migrated {
		lab[key] = v
	}
	lab["containerd"] = map[string]any{"address": m.Containerd.Address, "namespace": "k8s.io"}
	if text, err = yaml.Marshal(lab); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.Daemon.Config, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// fetched counts what came from the registry by digest; a tag is looked up each time.
func (m *migration) fetched() int {
	return m.Registry.RequestsBelow("GET /v2/demo/blobs/") + m.Registry.RequestsBelow("GET /v2/demo/manifests/sha256:")
}

func (m *migration) pullBy(t *testing.T, n *nodetest.Node) {
	t.Helper()
	if _, err := n.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: m.image}}); err != nil {
		t.Fatalf("pull %s: %v", m.image, err)
	}
}

// imagesOf lists references and ids; the plugin's pause image is its own matter.
func (m *migration) imagesOf(t *testing.T, n *nodetest.Node) []string {
	t.Helper()
	resp, err := n.Images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, image := range resp.GetImages() {
		for _, name := range append(image.GetRepoTags(), image.GetRepoDigests()...) {
			if !strings.Contains(name, "/pause") {
				out = append(out, name+" "+image.GetId())
			}
		}
	}
	slices.Sort(out)
	return out
}

// runPods runs a pod in the host's user namespace and one with ids of its own, and drains the node as crictl rmp -fa does.
func (m *migration) runPods(t *testing.T, n *nodetest.Node) {
	t.Helper()
	for _, opt := range []nodetest.PodOption{nodetest.HostUsers, nodetest.MappingOf(labnode.Extent{Start: m.Kubelet().Start, Length: 65536})} {
		req := n.PodRequest(t, opt)
		if err := os.MkdirAll(req.Config.LogDirectory, 0o755); err != nil {
			t.Fatal(err)
		}
		resp, err := n.Runtime.RunPodSandbox(t.Context(), req)
		if err != nil {
			t.Fatalf("RunPodSandbox: %v", err)
		}
		pod := n.PodOf(resp.GetPodSandboxId(), req)
		defer pod.RemoveFiles(t)
		c := pod.Run(t, m.image)
		if out := c.Exec(t, "id", "-u"); strings.TrimSpace(out) != "0" {
			t.Errorf("id -u says %q", out)
		}
	}
	resp, err := n.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(resp.GetItems()) != 2 {
		t.Fatalf("the node has the pods %v, %v", resp.GetItems(), err)
	}
	for _, pod := range resp.GetItems() {
		if _, err := n.Runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod.GetId()}); err != nil {
			t.Errorf("stop pod: %v", err)
		}
		if _, err := n.Runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.GetId()}); err != nil {
			t.Errorf("remove pod: %v", err)
		}
	}
}

func (m *migration) removeImages(t *testing.T, n *nodetest.Node) {
	t.Helper()
	if _, err := n.Images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: m.image}}); err != nil {
		t.Errorf("remove the image: %v", err)
	}
}
