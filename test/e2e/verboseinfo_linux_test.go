package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// namespacePaths are those of a specification by kind.
func namespacePaths(spec *specs.Spec) map[specs.LinuxNamespaceType]string {
	paths := map[specs.LinuxNamespaceType]string{}
	for _, ns := range spec.Linux.Namespaces {
		paths[ns.Type] = ns.Path
	}
	return paths
}

// kernelNames are the kinds of namespaces by their files in /proc/PID/ns.
var kernelNames = map[specs.LinuxNamespaceType]string{
	specs.UserNamespace: "user", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.PIDNamespace: "pid",
}

// TestVerboseInfoNamesNamespaces reads the runtimeSpec of a pod as tools do, and holds that its paths are those
// of the namespaces in which the pod's containers are.
func TestVerboseInfoNamesNamespaces(t *testing.T) {
	n := sharedNode(t)
	user, network, ipc, uts, pid := specs.UserNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.PIDNamespace
	for name, tt := range map[string]struct {
		opts []nodetest.PodOption
		want []specs.LinuxNamespaceType
	}{
		"user namespace":      {nil, []specs.LinuxNamespaceType{user, network, ipc, uts}},
		"host users":          {[]nodetest.PodOption{nodetest.HostUsers}, []specs.LinuxNamespaceType{network, ipc, uts}},
		"host network":        {[]nodetest.PodOption{nodetest.HostNetwork}, []specs.LinuxNamespaceType{ipc}},
		"shared PIDs":         {[]nodetest.PodOption{shareProcesses}, []specs.LinuxNamespaceType{user, network, ipc, uts, pid}},
		"host users and PIDs": {[]nodetest.PodOption{nodetest.HostUsers, shareProcesses}, []specs.LinuxNamespaceType{network, ipc, uts, pid}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := n.RunPod(t, tt.opts...)
			c := pod.Run(t, n.Image(t, labimage.Demo))
			info := n.PodInfo(t, pod.ID)
			paths := namespacePaths(info.RuntimeSpec)
			if len(paths) != len(tt.want) {
				t.Errorf("the namespaces are %v, want %v", paths, tt.want)
			}
			for _, kind := range tt.want {
				// /var/run is a link to /run, which would lead out of the node's own mounts.
				path := strings.Replace(paths[kind], "/var/run/", "/run/", 1)
				pinned := namespaceOf(t, filepath.Join(n.World.ProcDir(), "root", path))
				if joined := namespaceOf(t, fmt.Sprintf("/proc/%d/ns/%s", c.PID(t), kernelNames[kind])); pinned != joined {
					t.Errorf("%s is %s, and the container is in %s", paths[kind], pinned, joined)
				}
			}
			wantRest(t, pod, info)
			wantContainerInfo(t, n.ContainerInfo(t, c.ID), pod, c)
			pod.Stop(t)
			if paths := namespacePaths(n.PodInfo(t, pod.ID).RuntimeSpec); len(paths) != 0 {
				t.Errorf("a stopped pod has the namespaces %v", paths)
			}
		})
	}
}

// wantRest holds what else of a pod is in the information.
func wantRest(t *testing.T, pod *nodetest.Pod, info nodetest.Info) {
	t.Helper()
	if shared := namespacePaths(info.RuntimeSpec)[specs.PIDNamespace] != ""; (*info.PID != 0) != shared {
		t.Errorf("pid is %d, want a process exactly where the pod shares a PID namespace", *info.PID)
	}
	if info.Snapshotter != "overlayfs" || info.RuntimeType != "io.containerd.runc.v2" || info.Config.Metadata.Name != pod.Request.Config.Metadata.Name {
		t.Errorf("the information is %+v", info)
	}
	if pod.Request.Config.Linux.SecurityContext.NamespaceOptions.UsernsOptions == nil {
		if info.Range.Length != 0 || info.RuntimeSpec.Linux.UIDMappings != nil {
			t.Errorf("a pod with the host's users has the range %v and the mapping %v", info.Range, info.RuntimeSpec.Linux.UIDMappings)
		}
		return
	}
	start := pod.Range(t)
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: start, Size: 65536}}
	if info.Range.Start != start || info.Range.Length != 65536 || !slices.Equal(info.RuntimeSpec.Linux.UIDMappings, want) || !slices.Equal(info.RuntimeSpec.Linux.GIDMappings, want) {
		t.Errorf("the range is %v and the mapping %v, want 65536 ids from %d", info.Range, info.RuntimeSpec.Linux.UIDMappings, start)
	}
}

func wantContainerInfo(t *testing.T, info nodetest.Info, pod *nodetest.Pod, c *nodetest.Container) {
	t.Helper()
	if *info.PID != c.PID(t) || info.SandboxID != pod.ID || info.SnapshotKey != c.ID || info.Snapshotter != "overlayfs" ||
		info.RuntimeType != "io.containerd.runc.v2" || info.Config.Metadata.Name != c.Config.Metadata.Name {
		t.Errorf("the information of container %s is %+v", c.ID, info)
	}
	if info.RuntimeSpec == nil || len(info.RuntimeSpec.Mounts) == 0 || info.RuntimeSpec.Process == nil {
		t.Errorf("the container's runtimeSpec is %+v", info.RuntimeSpec)
	}
}
