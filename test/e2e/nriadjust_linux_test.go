package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// adjusted runs a container that the plugin adjusts.
func adjusted(t *testing.T, n *nodetest.Node, pod *nodetest.Pod, plugin *nriPlugin, adjust *api.ContainerAdjustment, opts ...nodetest.ContainerOption) *nodetest.Container {
	t.Helper()
	config := pod.ContainerConfig(n.Image(t, labimage.Demo), opts...)
	plugin.adjust(t, config.Metadata.Name, adjust)
	c, err := pod.TryCreate(t.Context(), config)
	if err != nil {
		t.Fatalf("CreateContainer: %v", err)
	}
	c.Start(t)
	return c
}

// TestNRIAdjustsContainer has a plugin change all that a container is made of, and looks at it from inside.
func TestNRIAdjustsContainer(t *testing.T) {
	n := sharedNode(t)
	plugin := runPlugin(t, n)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		dir := volume(t, n)
		write(t, filepath.Join(dir, "file"), "data", 1000, 1000)
		pod := n.RunPod(t, opts...)
		c := adjusted(t, n, pod, plugin, &api.ContainerAdjustment{
			Annotations: map[string]string{"example.com/adjusted": "yes"},
			Env:         []*api.KeyValue{{Key: "ADJUSTED", Value: "yes"}, {Key: "GIVEN", Value: "changed"}},
			Args:        []string{"sleep", "1001"},
			Mounts: []*api.Mount{
				{Destination: "/writable", Type: "bind", Source: dir, Options: []string{"rbind", "rw", "rprivate"}},
				{Destination: "/readonly", Type: "bind", Source: dir, Options: []string{"bind", "ro", "nosuid"}},
				{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}},
			},
			Hooks: &api.Hooks{CreateRuntime: []*api.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > " + dir + "/hooked"}}}},
			Linux: &api.LinuxContainerAdjustment{
				Devices:     []*api.LinuxDevice{{Path: "/dev/full", Type: "c", Major: 1, Minor: 7}, {Path: "/dev/elsewhere", Type: "c", Major: 1, Minor: 5}},
				OomScoreAdj: &api.OptionalInt{Value: 1000},
				Sysctl:      map[string]string{"net.ipv4.ip_local_port_range": "20000 30000"},
				IoPriority:  &api.LinuxIOPriority{Class: api.IOPrioClass_IOPRIO_CLASS_BE, Priority: 6},
				Resources: &api.LinuxResources{
					Memory: &api.LinuxMemory{Limit: api.Int64(int64(96 << 20))},
					Cpu:    &api.LinuxCPU{Shares: api.UInt64(uint64(333)), Quota: api.Int64(int64(50000)), Period: api.UInt64(uint64(100000))},
					Pids:   &api.LinuxPids{Limit: 77},
				},
			},
		}, func(c *runtimeapi.ContainerConfig) {
			c.Envs = []*runtimeapi.KeyValue{{Key: "GIVEN", Value: []byte("given")}}
		})
		wantAdjusted(t, n, c, dir)
		c.Stop(t, 0)
		c.Remove(t)
	})
}

func wantAdjusted(t *testing.T, n *nodetest.Node, c *nodetest.Container, dir string) {
	t.Helper()
	if got := n.ContainerInfo(t, c.ID).RuntimeSpec.Annotations["example.com/adjusted"]; got != "yes" {
		t.Errorf("the annotation is %q", got)
	}
	for _, check := range []struct{ what, script, want string }{
		{"environment", "echo $ADJUSTED $GIVEN", "yes changed"},
		{"arguments", "tr '\\0' ' ' < /proc/1/cmdline", "sleep 1001"},
		{"owners of a writable mount", "stat -c '%u:%g' /writable/file", "1000:1000"},
		{"owners of a read-only mount", "stat -c '%u:%g' /readonly/file", "1000:1000"},
		{"new file", "touch /writable/new && stat -c '%u:%g' /writable/new", "0:0"},
		{"read-only mount", "touch /readonly/x 2>/dev/null || echo refused", "refused"},
		{"tmpfs", "stat -f -c %T /scratch", "tmpfs"},
		{"device", "echo x 2>/dev/null > /dev/full || echo full", "full"},
		{"device of another name", "head -c 2 /dev/elsewhere | od -An -tx1 | tr -d ' '", "0000"},
		{"score for the OOM killer", "cat /proc/1/oom_score_adj", "1000"},
		{"sysctl", "cat /proc/sys/net/ipv4/ip_local_port_range | tr '\\t' ' '", "20000 30000"},
		{"memory limit", "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes", fmt.Sprint(96 << 20)},
		{"limit of processes", "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max", "77"},
	} {
		if got := c.Exec(t, "sh", "-c", check.script); got != check.want {
			t.Errorf("%s: %q prints %q, want %q", check.what, check.script, got, check.want)
		}
	}
	// On disk a new file has the owner that the pod sees: the host's root.
	if got := ownerOf(t, filepath.Join(dir, "new")); got != (owner{}) {
		t.Errorf("the new file belongs to %+v on the host, want 0:0", got)
	}
	if state, err := os.ReadFile(filepath.Join(dir, "hooked")); err != nil || !strings.Contains(string(state), c.ID) {
		t.Errorf("the hook got %q: %v", state, err)
	}
}

// TestNRIAdjustsRlimits holds that limits are set; in a pod with a user namespace that takes a capability of the host,
// and without it the plugin is told so.
func TestNRIAdjustsRlimits(t *testing.T) {
	n := sharedNode(t)
	plugin := runPlugin(t, n)
	adjust := &api.ContainerAdjustment{Rlimits: []*api.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 111, Hard: 222}}}
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		if len(opts) == 0 && !nodetest.HasSysResource(t) {
			wantRefused(t, n, pod, plugin, adjust, "CAP_SYS_RESOURCE")
			return
		}
		c := adjusted(t, n, pod, plugin, adjust)
		if got := fields(c.Exec(t, "awk", "/open files/ {print $4, $5}", "/proc/1/limits")); got != "111 222" {
			t.Errorf("the limits are %q, want 111 222", got)
		}
	})
}

// TestNRIAdjustsCDIDevices has a plugin ask for a device by its CDI name.
func TestNRIAdjustsCDIDevices(t *testing.T) {
	n := sharedNode(t)
	plugin := runPlugin(t, n)
	dir := gadget(t, n)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		adjust := &api.ContainerAdjustment{CDIDevices: []*api.CDIDevice{{Name: "example.com/gadget=zero"}}}
		wantGadget(t, adjusted(t, n, pod, plugin, adjust), dir)
		wantRefused(t, n, pod, plugin, &api.ContainerAdjustment{CDIDevices: []*api.CDIDevice{{Name: "example.com/gadget=none"}}}, "example.com/gadget=none")
	})
}

// wantRefused holds that a container is not created with an adjustment, and that the error names the plugin.
func wantRefused(t *testing.T, n *nodetest.Node, pod *nodetest.Pod, plugin *nriPlugin, adjust *api.ContainerAdjustment, word string) {
	t.Helper()
	config := pod.ContainerConfig(n.Image(t, labimage.Demo))
	plugin.adjust(t, config.Metadata.Name, adjust)
	_, err := pod.TryCreate(t.Context(), config)
	wantError(t, err, codes.FailedPrecondition, "10-test", word)
}

// TestNRIRefusesUserNamespaceChanges holds that no plugin takes a container out of its pod's range of ids, or makes one
// that its pod's user namespace could not have.
func TestNRIRefusesUserNamespaceChanges(t *testing.T) {
	n := sharedNode(t)
	plugin := runPlugin(t, n)
	namespace := func(kind, path string) *api.ContainerAdjustment {
		return &api.ContainerAdjustment{Linux: &api.LinuxContainerAdjustment{Namespaces: []*api.LinuxNamespace{{Type: kind, Path: path}}}}
	}
	mount := func(m *api.Mount) *api.ContainerAdjustment { return &api.ContainerAdjustment{Mounts: []*api.Mount{m}} }
	always := map[string]*api.ContainerAdjustment{
		"user namespace":   namespace("user", "/proc/1/ns/user"),
		"and its ids":      namespace("user", ""),
		"cannot be change": namespace("-user", ""),
		"which pod":        {Annotations: map[string]string{"io.kubernetes.cri.sandbox-id": strings.Repeat("0", 64)}},
	}
	own := map[string]*api.ContainerAdjustment{
		"pid":                namespace("-pid", ""),
		"network":            namespace("-network", ""),
		"mount namespace":    namespace("mount", "/proc/1/ns/mnt"),
		"bidirectional":      mount(&api.Mount{Destination: "/x", Type: "bind", Source: n.Dir, Options: []string{"rbind", "rshared"}}),
		"cannot be idmapped": mount(&api.Mount{Destination: "/x", Type: "bind", Source: "/proc", Options: []string{"rbind"}}),
		"no such file":       mount(&api.Mount{Destination: "/x", Type: "bind", Source: "/missing", Options: []string{"rbind", "ro"}}),
		"4095:4095":          {Linux: &api.LinuxContainerAdjustment{Devices: []*api.LinuxDevice{{Path: "/dev/none", Type: "c", Major: 4095, Minor: 4095}}}},
	}
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		refused := []map[string]*api.ContainerAdjustment{always}
		if len(opts) == 0 {
			refused = append(refused, own)
		}
		for _, adjustments := range refused {
			for word, adjust := range adjustments {
				wantRefused(t, n, pod, plugin, adjust, word)
			}
		}
		// A plugin can still give a container a PID namespace of its own.
		adjusted(t, n, pod, plugin, namespace("pid", ""))
	})
}

// TestNRITwoPluginsDisagree holds that the error names both.
func TestNRITwoPluginsDisagree(t *testing.T) {
	n := sharedNode(t)
	first, second := newPlugin(t), newPlugin(t)
	first.start(t, n, "10")
	second.start(t, n, "20")
	pod := n.RunPod(t)
	config := pod.ContainerConfig(n.Image(t, labimage.Demo))
	for i, p := range []*nriPlugin{first, second} {
		p.adjust(t, config.Metadata.Name, &api.ContainerAdjustment{Env: []*api.KeyValue{{Key: "WHO", Value: fmt.Sprint(i)}}})
	}
	_, err := pod.TryCreate(t.Context(), config)
	wantError(t, err, codes.FailedPrecondition, "10-test", "20-test", "WHO")
	// The refusal names the one that is to blame.
	first.answer(t, pluginScript{})
	second.adjust(t, config.Metadata.Name, &api.ContainerAdjustment{
		Linux: &api.LinuxContainerAdjustment{Namespaces: []*api.LinuxNamespace{{Type: "user"}}},
	})
	_, err = pod.TryCreate(t.Context(), config)
	wantError(t, err, codes.FailedPrecondition, "20-test", "user namespace")
	if err != nil && strings.Contains(err.Error(), "10-test") {
		t.Errorf("the error blames an innocent plugin: %v", err)
	}
}

// memoryLimit reads the cgroup of a container from inside, in MiB.
func memoryLimit(t *testing.T, c *nodetest.Container) string {
	t.Helper()
	return c.Exec(t, "sh", "-c", "cd /sys/fs/cgroup; echo $(( $(cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes) >> 20 ))")
}

func memoryUpdate(t *testing.T, c *nodetest.Container, megabytes int64) json.RawMessage {
	t.Helper()
	return pluginMessage(t, &api.ContainerUpdate{ContainerId: c.ID, Linux: &api.LinuxContainerUpdate{Resources: &api.LinuxResources{
		Memory: &api.LinuxMemory{Limit: api.Int64(megabytes << 20)},
	}}})
}

// TestNRIUpdatesContainers has a plugin change the resources of containers unasked, when a client updates one, and when
// others are created and stopped.
func TestNRIUpdatesContainers(t *testing.T) {
	n := sharedNode(t)
	plugin := runPlugin(t, n)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		image := n.Image(t, labimage.Demo)
		c, other := pod.Run(t, image), pod.Run(t, image)
		want := func(c *nodetest.Container, megabytes int) {
			t.Helper()
			eventually(t, fmt.Sprintf("the limit is %d MiB", megabytes), func() bool { return memoryLimit(t, c) == strconv.Itoa(megabytes) })
		}
		// Unasked: a container that is not there is passed over.
		before := len(plugin.entries(t, "unasked"))
		gone := pluginMessage(t, &api.ContainerUpdate{ContainerId: strings.Repeat("0", 64)})
		plugin.put(t, "updates.json", []json.RawMessage{memoryUpdate(t, c, 60), gone, memoryUpdate(t, other, 61)})
		if answer := plugin.await(t, "unasked", before+1); answer.Failed != 0 || answer.Error != "" {
			t.Errorf("the unasked update is answered with %d failed, %q", answer.Failed, answer.Error)
		}
		want(c, 60)
		want(other, 61)
		// On a client's update the plugin has the last word, and may change others.
		plugin.answer(t, pluginScript{Update: map[string][]json.RawMessage{"UpdateContainer": {memoryUpdate(t, c, 70), memoryUpdate(t, other, 71)}}})
		request := &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 80 << 20}}
		if _, err := n.Runtime.UpdateContainerResources(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		want(c, 70)
		want(other, 71)
		if got := c.Status(t).GetResources().GetLinux().GetMemoryLimitInBytes(); got != 70<<20 {
			t.Errorf("the status has the memory limit %d, want that of the plugin", got)
		}
		if events := plugin.of(t, pod.ID); !slices.Equal(events[len(events)-2:], []string{"UpdateContainer", "PostUpdateContainer"}) {
			t.Errorf("the plugin saw %q", events)
		}
		// When another is created its update is made before; when one stops, afterwards.
		plugin.answer(t, pluginScript{Update: map[string][]json.RawMessage{"CreateContainer": {memoryUpdate(t, c, 65)}, "StopContainer": {memoryUpdate(t, c, 75)}}})
		third := pod.Create(t, image)
		if got := memoryLimit(t, c); got != "65" {
			t.Errorf("after the creation of another the limit is %s MiB, want 65", got)
		}
		third.Start(t)
		third.Stop(t, 0)
		want(c, 75)
		plugin.answer(t, pluginScript{})
		// A plugin that comes late may change what it is shown.
		late := newPlugin(t)
		late.answer(t, pluginScript{Update: map[string][]json.RawMessage{"Synchronize": {memoryUpdate(t, c, 85)}}})
		late.start(t, n, "20")
		want(c, 85)
	})
}

// TestNRIUpdateThatFails holds that the plugin is told.
func TestNRIUpdateThatFails(t *testing.T) {
	n := sharedNode(t)
	plugin := runPlugin(t, n)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo))
	bad := pluginMessage(t, &api.ContainerUpdate{ContainerId: c.ID, Linux: &api.LinuxContainerUpdate{Resources: &api.LinuxResources{Cpu: &api.LinuxCPU{Cpus: "none"}}}})
	plugin.put(t, "updates.json", []json.RawMessage{bad})
	if answer := plugin.await(t, "unasked", 1); !strings.Contains(answer.Error, `cpuset cpus "none"`) {
		t.Errorf("the update is answered with %+v, want its error", answer)
	}
}
