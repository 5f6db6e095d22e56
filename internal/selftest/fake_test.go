package selftest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/selftest/inside"
)

// fakeNode is a runtime and a host that do everything right, and remember what there is. Tests break it.
type fakeNode struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	version error
	status  *runtimeapi.StatusResponse
	// wantsMapping makes it refuse pods without a mapping, as containerd does.
	wantsMapping bool
	// report changes what PodSandboxStatus answers, facts what a container tells.
	report func(number int, status *runtimeapi.PodSandboxStatus)
	facts  func(number int, facts *inside.Facts)
	// before is asked at the beginning of each call that changes something.
	before func(method string) error

	pid       error        // of FindProcess
	fileOwner inside.Owner // of a pod's file relative to its range, for the host
	layer     LayerFile
	layerErr  error
	mapped    []Extent

	mu         sync.Mutex
	pods       map[string]*fakePod
	images     map[string]bool
	keepPods   bool // RemovePodSandbox removes nothing
	keepImages bool
	asked      []*runtimeapi.RunPodSandboxRequest
	removed    []string
}

type fakePod struct {
	number    int
	config    *runtimeapi.PodSandboxConfig
	container *runtimeapi.ContainerConfig
	start     uint32
}

// firstID is that of the ranges which the fake runtime chooses.
const firstID = 2113798144

func newFakeNode() *fakeNode {
	ready := func(kind string) *runtimeapi.RuntimeCondition {
		return &runtimeapi.RuntimeCondition{Type: kind, Status: true}
	}
	return &fakeNode{
		status: &runtimeapi.StatusResponse{
			Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
				ready(runtimeapi.RuntimeReady), ready(runtimeapi.NetworkReady),
			}},
			RuntimeHandlers: []*runtimeapi.RuntimeHandler{
				{Features: &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: true}},
				{Name: "plain", Features: &runtimeapi.RuntimeHandlerFeatures{}},
			},
			Features: &runtimeapi.RuntimeFeatures{UserNamespacesHostNetwork: true},
		},
		layer:  LayerFile{Path: "/layers/1/fs/bin/busybox"},
		pods:   map[string]*fakePod{},
		images: map[string]bool{},
	}
}

// serve serves the node on a socket until the test ends, and returns options that lead to it.
func (n *fakeNode) serve(t *testing.T) Options {
	t.Helper()
	// t.TempDir is too long for a unix socket.
	dir, err := os.MkdirTemp("", "st-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "cri.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, n)
	runtimeapi.RegisterImageServiceServer(server, n)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return Options{Endpoint: socket, Image: "registry.example/busybox:1", IDs: DefaultIDs, Host: n, Timeout: time.Minute}
}

func (n *fakeNode) ask(method string) error {
	if n.before == nil {
		return nil
	}
	return n.before(method)
}

func (n *fakeNode) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "fake", RuntimeVersion: "v1"}, n.version
}

func (n *fakeNode) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return n.status, n.ask("Status")
}

func (n *fakeNode) RunPodSandbox(_ context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, req)
	if err := n.ask("RunPodSandbox"); err != nil {
		return nil, err
	}
	uids := usersOf(req.GetConfig()).GetUids()
	if n.wantsMapping && len(uids) == 0 {
		return nil, errors.New("no mapping")
	}
	pod := &fakePod{number: len(n.pods) + 1, config: req.GetConfig()}
	pod.start = uint32(firstID + pod.number*idsPerPod)
	if len(uids) == 1 {
		pod.start = uids[0].GetHostId()
	}
	id := fmt.Sprintf("pod%d", pod.number)
	n.pods[id] = pod
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func usersOf(config *runtimeapi.PodSandboxConfig) *runtimeapi.UserNamespace {
	return config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
}

func (n *fakeNode) CreateContainer(_ context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods[req.GetPodSandboxId()].container = req.GetConfig()
	return &runtimeapi.CreateContainerResponse{ContainerId: req.GetPodSandboxId()}, n.ask("CreateContainer")
}

func (n *fakeNode) StartContainer(context.Context, *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	return &runtimeapi.StartContainerResponse{}, n.ask("StartContainer")
}

func (n *fakeNode) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	pod := n.pods[req.GetPodSandboxId()]
	ids := []*runtimeapi.IDMapping{{HostId: pod.start, Length: idsPerPod}}
	status := &runtimeapi.PodSandboxStatus{
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.0.0.2"},
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: &runtimeapi.NamespaceOption{
			UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids},
		}}},
	}
	if n.report != nil {
		n.report(pod.number, status)
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: status}, n.ask("PodSandboxStatus")
}

// ExecSync answers as the program in the container would.
func (n *fakeNode) ExecSync(_ context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.ask("ExecSync"); err != nil {
		return &runtimeapi.ExecSyncResponse{ExitCode: 127, Stderr: []byte(err.Error())}, nil
	}
	pod := n.pods[req.GetContainerId()]
	facts := inside.Facts{
		UIDMap:     fmt.Sprintf("0 %d 65536", pod.start),
		GIDMap:     fmt.Sprintf("0 %d 65536", pod.start),
		SetGroups:  "allow",
		Witness:    inside.Witness{Path: "/bin/busybox", Inode: 7},
		Processes:  []string{strings.Join(pod.container.GetCommand(), " ")},
		Interfaces: []string{"lo", "eth0"},
		Signal:     inside.Attempt[struct{}]{Error: "sh: can't kill pid 1001: No such process"},
	}
	if n.facts != nil {
		n.facts(pod.number, &facts)
	}
	out, err := json.Marshal(facts)
	return &runtimeapi.ExecSyncResponse{Stdout: out}, err
}

func (n *fakeNode) StopPodSandbox(context.Context, *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	return &runtimeapi.StopPodSandboxResponse{}, n.ask("StopPodSandbox")
}

func (n *fakeNode) RemovePodSandbox(_ context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.keepPods {
		delete(n.pods, req.GetPodSandboxId())
	}
	n.removed = append(n.removed, req.GetPodSandboxId())
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// ListPodSandbox ignores the filter, and so lists a pod of somebody else too.
func (n *fakeNode) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	items := []*runtimeapi.PodSandbox{{Id: "others"}}
	for id, pod := range n.pods {
		items = append(items, &runtimeapi.PodSandbox{Id: id, Labels: pod.config.GetLabels()})
	}
	return &runtimeapi.ListPodSandboxResponse{Items: items}, n.ask("ListPodSandbox")
}

func (n *fakeNode) ListContainers(context.Context, *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := []*runtimeapi.Container{{Id: "others"}}
	for id, pod := range n.pods {
		if pod.container != nil {
			list = append(list, &runtimeapi.Container{Id: id, Labels: pod.container.GetLabels()})
		}
	}
	return &runtimeapi.ListContainersResponse{Containers: list}, nil
}

func (n *fakeNode) PullImage(_ context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.ask("PullImage"); err != nil {
		return nil, err
	}
	n.images[req.GetImage().GetImage()] = true
	return &runtimeapi.PullImageResponse{ImageRef: "sha256:pulled"}, nil
}

func (n *fakeNode) ImageStatus(_ context.Context, req *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.images[req.GetImage().GetImage()] {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "sha256:present"}}, nil
}

func (n *fakeNode) RemoveImage(_ context.Context, req *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.keepImages {
		delete(n.images, req.GetImage().GetImage())
	}
	return &runtimeapi.RemoveImageResponse{}, nil
}

func (n *fakeNode) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	usage := &runtimeapi.FilesystemUsage{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/layers"}}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{usage}}, nil
}

// The host's side.

func (n *fakeNode) FindProcess(token string) (int, error) {
	if n.pid != nil {
		return 0, n.pid
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, pod := range n.pods {
		if command := pod.container.GetCommand(); len(command) > 0 && command[len(command)-1] == token {
			return 1000 + pod.number, nil
		}
	}
	return 0, fmt.Errorf("no container has the argument %s: %w", token, ErrNotSeen)
}

func (n *fakeNode) Owner(pid int, _ string) (inside.Owner, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, pod := range n.pods {
		if pod.number == pid-1000 {
			return inside.Owner{UID: pod.start + n.fileOwner.UID, GID: pod.start + n.fileOwner.GID}, nil
		}
	}
	return inside.Owner{}, fmt.Errorf("no process %d", pid)
}

func (n *fakeNode) FindLayerFile(string, inside.Witness) (LayerFile, error) {
	return n.layer, n.layerErr
}

func (n *fakeNode) MappedIDs() ([]Extent, error) { return n.mapped, nil }
