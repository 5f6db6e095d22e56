package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
)

// pod is a sandbox with one container.
type pod struct {
	name      string
	sandbox   string
	container string
	runtime   runtimeapi.RuntimeServiceClient
	ids       labnode.Extent // as the runtime reports them
	pid       int            // of the container, on the host
}

// runPod runs a pod with hostUsers: false. Without a mapping userns-shim chooses one; kubelet sends one.
func (d *demo) runPod(ctx context.Context, name string, mapping []*runtimeapi.IDMapping) error {
	users := &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: mapping, Gids: mapping}
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER, UsernsOptions: users}
	logs := filepath.Join(d.node.Dir, "logs", name)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "demo", Uid: name + "-" + d.node.Name},
		Hostname:     name,
		LogDirectory: logs,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    d.node.Cgroup(),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options},
		},
	}
	p := &pod{name: name, runtime: d.runtime}
	sandbox, err := d.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		return fmt.Errorf("run pod %s: %w", name, err)
	}
	p.sandbox = sandbox.GetPodSandboxId()
	d.pods = append(d.pods, p)
	created, err := d.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.sandbox, SandboxConfig: config, Config: d.containerConfig(name, options),
	})
	if err != nil {
		return fmt.Errorf("create container of pod %s: %w", name, err)
	}
	p.container = created.GetContainerId()
	if _, err := d.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: p.container}); err != nil {
		return fmt.Errorf("start container of pod %s: %w", name, err)
	}
	return p.find(ctx)
}

func (d *demo) containerConfig(name string, options *runtimeapi.NamespaceOption) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: d.image()},
		Command:  []string{"sleep", "infinity"},
		LogPath:  "0.log",
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       &runtimeapi.LinuxContainerResources{},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: options},
		},
	}
}

// find learns the pod's ids from the runtime, and its process from the host.
func (p *pod) find(ctx context.Context) error {
	resp, err := p.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.sandbox})
	if err != nil {
		return fmt.Errorf("status of pod %s: %w", p.name, err)
	}
	uids := resp.GetStatus().GetLinux().GetNamespaces().GetOptions().GetUsernsOptions().GetUids()
	if len(uids) != 1 {
		return fmt.Errorf("status of pod %s has %d mappings, want 1", p.name, len(uids))
	}
	p.ids = labnode.Extent{Start: uids[0].GetHostId(), Length: uids[0].GetLength()}
	procs, err := leaks.Processes()
	if err != nil {
		return err
	}
	for _, proc := range procs {
		if proc.UID == p.ids.Start {
			p.pid = proc.PID
			return nil
		}
	}
	return fmt.Errorf("no process on the host has the id %d, which is root of pod %s", p.ids.Start, p.name)
}

// exec runs a command in the container and returns its output, the words apart by single spaces.
func (p *pod) exec(ctx context.Context, command ...string) (string, error) {
	resp, err := p.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: p.container, Cmd: command, Timeout: 30})
	if err != nil {
		return "", fmt.Errorf("exec %s in pod %s: %w", command[0], p.name, err)
	}
	if resp.GetExitCode() != 0 {
		return "", fmt.Errorf("exec %s in pod %s: exit code %d: %s", command[0], p.name, resp.GetExitCode(), resp.GetStderr())
	}
	return strings.Join(strings.Fields(string(resp.GetStdout())), " "), nil
}

func (d *demo) removePod(ctx context.Context, id string) error {
	if _, err := d.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("stop pod %s: %w", id, err)
	}
	if _, err := d.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("remove pod %s: %w", id, err)
	}
	return nil
}

// rangesInUse is for the leak check: a range that rests after its pod is none in use.
func (d *demo) rangesInUse(ctx context.Context) ([]string, error) {
	ranges, err := admin.NewClient(admin.SocketPath(d.node.Daemon.State)).PoolRanges(ctx)
	if err != nil {
		return nil, err
	}
	var used []string
	for _, r := range ranges {
		if r.State == "allocated" {
			used = append(used, fmt.Sprintf("%d:%d of pod %s", r.Start, r.Length, r.Pod))
		}
	}
	return used, nil
}
