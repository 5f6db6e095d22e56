package nodetest

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
)

// Pod is a running sandbox.
type Pod struct {
	ID      string
	Request *runtimeapi.RunPodSandboxRequest

	node *Node
}

// PodOption changes the request for a pod before it is sent.
type PodOption func(*runtimeapi.RunPodSandboxRequest)

// HostUsers leaves the pod in the host's user namespace.
func HostUsers(req *runtimeapi.RunPodSandboxRequest) {
	namespaces(req).UsernsOptions = nil
}

// Mapping asks for the range of host ids from start on, as kubelet does.
func Mapping(start uint32) PodOption {
	return MappingOf(labnode.Extent{Start: start, Length: labnode.IDsPerRange})
}

// MappingOf asks for host ids of any number.
func MappingOf(want labnode.Extent) PodOption {
	return func(req *runtimeapi.RunPodSandboxRequest) {
		ids := []*runtimeapi.IDMapping{{ContainerId: 0, HostId: want.Start, Length: want.Length}}
		namespaces(req).UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
	}
}

// Annotation sets an annotation of the pod.
func Annotation(name, value string) PodOption {
	return func(req *runtimeapi.RunPodSandboxRequest) {
		if req.Config.Annotations == nil {
			req.Config.Annotations = map[string]string{}
		}
		req.Config.Annotations[name] = value
	}
}

// SamePod makes the pod that of another request, for its next attempt.
func SamePod(as *runtimeapi.RunPodSandboxRequest) PodOption {
	return func(req *runtimeapi.RunPodSandboxRequest) {
		md := as.Config.Metadata
		req.Config.Metadata.Name, req.Config.Metadata.Namespace, req.Config.Metadata.Uid = md.Name, md.Namespace, md.Uid
	}
}

// HostNetwork puts the pod into the node's network and host's user namespace.
func HostNetwork(req *runtimeapi.RunPodSandboxRequest) {
	HostUsers(req)
	namespaces(req).Network = runtimeapi.NamespaceMode_NODE
}

// Sysctl sets one kernel parameter of the pod.
func Sysctl(key, value string) PodOption {
	return func(req *runtimeapi.RunPodSandboxRequest) {
		if req.Config.Linux.Sysctls == nil {
			req.Config.Linux.Sysctls = map[string]string{}
		}
		req.Config.Linux.Sysctls[key] = value
	}
}

// Handler names the runtime handler.
func Handler(name string) PodOption {
	return func(req *runtimeapi.RunPodSandboxRequest) { req.RuntimeHandler = name }
}

func namespaces(req *runtimeapi.RunPodSandboxRequest) *runtimeapi.NamespaceOption {
	return req.Config.Linux.SecurityContext.NamespaceOptions
}

// PodRequest is what RunPod sends: a pod like one of kubelet's with hostUsers false, which leaves the choice
// of the range to the runtime.
func (n *Node) PodRequest(t testing.TB, opts ...PodOption) *runtimeapi.RunPodSandboxRequest {
	t.Helper()
	uid := rand.Text()
	req := &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: podName(t), Namespace: "e2e", Uid: uid},
		Hostname:     "pod",
		LogDirectory: n.logDir(uid),
		Labels:       map[string]string{"test": podName(t)},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: n.Cgroup() + "/pod" + uid,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{
					Pid:           runtimeapi.NamespaceMode_CONTAINER,
					UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD},
				},
			},
		},
	}}
	for _, opt := range opts {
		opt(req)
	}
	return req
}

// RunPod runs a pod and removes it when the test ends.
func (n *Node) RunPod(t testing.TB, opts ...PodOption) *Pod {
	t.Helper()
	pod, err := n.TryRunPod(t, n.PodRequest(t, opts...))
	if err != nil {
		t.Fatalf("RunPodSandbox: %v", err)
	}
	return pod
}

// TryRunPod sends a request, and removes the pod when the test ends if there is one.
func (n *Node) TryRunPod(t testing.TB, req *runtimeapi.RunPodSandboxRequest) (*Pod, error) {
	t.Helper()
	if dir := req.Config.LogDirectory; dir != "" { // kubelet makes it first, too
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	resp, err := n.Runtime.RunPodSandbox(ctx, req)
	if err != nil {
		return nil, err
	}
	return n.Adopt(t, resp.PodSandboxId, req), nil
}

// PodOf is the pod that a request made; its removal is the caller's.
func (n *Node) PodOf(id string, req *runtimeapi.RunPodSandboxRequest) *Pod {
	return &Pod{ID: id, Request: req, node: n}
}

// Stop stops the pod and all its containers.
func (p *Pod) Stop(t testing.TB) {
	t.Helper()
	// Cleanups run after the test's own context has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callTimeout)
	defer cancel()
	if _, err := p.node.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.ID}); err != nil {
		t.Errorf("StopPodSandbox: %v", err)
	}
}

// Remove stops and removes the pod and its logs; CRI lets it be called again.
func (p *Pod) Remove(t testing.TB) {
	t.Helper()
	p.Stop(t)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callTimeout)
	defer cancel()
	if _, err := p.node.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.ID}); err != nil {
		t.Errorf("RemovePodSandbox: %v", err)
	}
	p.RemoveFiles(t)
}

// RemoveFiles removes what is kubelet's of a pod: its logs and its cgroup.
func (p *Pod) RemoveFiles(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(p.Request.Config.LogDirectory); err != nil {
		t.Error(err)
	}
	p.removeCgroup(t)
}

// removeCgroup is kubelet's part: the pod's cgroup is its own, the containers' below are the runtime's. One
// that still has a container's below it cannot be removed, and the leak check will name both.
func (p *Pod) removeCgroup(t testing.TB) {
	t.Helper()
	roots, err := leaks.CgroupRoots()
	if err != nil {
		t.Error(err)
	}
	for _, root := range roots {
		_ = os.Remove(filepath.Join(root, p.Request.Config.Linux.CgroupParent))
	}
}

// Status is the sandbox's status.
func (p *Pod) Status(t testing.TB) *runtimeapi.PodSandboxStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	resp, err := p.node.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil {
		t.Fatalf("PodSandboxStatus: %v", err)
	}
	return resp.Status
}

// Range is the first host id of the pod's user namespace, which has 65536.
func (p *Pod) Range(t testing.TB) uint32 {
	t.Helper()
	ids := p.IDs(t)
	if ids.Length != labnode.IDsPerRange {
		t.Fatalf("the pod has %d ids, want %d", ids.Length, labnode.IDsPerRange)
	}
	return ids.Start
}

// IDs are the host ids of the pod's user namespace, as its status reports them.
func (p *Pod) IDs(t testing.TB) labnode.Extent {
	t.Helper()
	users := p.Status(t).GetLinux().GetNamespaces().GetOptions().GetUsernsOptions()
	if users.GetMode() != runtimeapi.NamespaceMode_POD || len(users.GetUids()) != 1 || len(users.GetGids()) != 1 {
		t.Fatalf("status reports the user namespace %v, want mode POD with one uid and one gid mapping", users)
	}
	uid, gid := users.Uids[0], users.Gids[0]
	if uid.HostId != gid.HostId || uid.ContainerId != 0 || gid.ContainerId != 0 || uid.Length != gid.Length {
		t.Fatalf("status reports uids %v and gids %v, want one range from container id 0", uid, gid)
	}
	return labnode.Extent{Start: uid.HostId, Length: uid.Length}
}

// IP is the pod's address.
func (p *Pod) IP(t testing.TB) string {
	t.Helper()
	ip := p.Status(t).GetNetwork().GetIp()
	if ip == "" {
		t.Fatal("the pod has no address")
	}
	return ip
}

// logPath is the absolute path of a container's log.
func (p *Pod) logPath(relative string) string {
	return filepath.Join(p.Request.Config.LogDirectory, relative)
}

// Adopt returns the pod that a request made, by whatever call, and removes it when the test ends.
func (n *Node) Adopt(t testing.TB, id string, req *runtimeapi.RunPodSandboxRequest) *Pod {
	t.Helper()
	pod := n.PodOf(id, req)
	t.Cleanup(func() { pod.Remove(t) })
	return pod
}

// Adopt returns a container of the pod that the runtime made by another call than CreateContainer.
func (p *Pod) Adopt(id string, config *runtimeapi.ContainerConfig) *Container {
	return &Container{ID: id, Config: config, pod: p}
}
