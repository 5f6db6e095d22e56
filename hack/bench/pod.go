package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// callTimeout bounds one CRI call; kubelet gives two minutes as well.
const callTimeout = 2 * time.Minute

// pod is what kubelet would ask for, and the ids that the runtime gave.
type pod struct {
	config    *runtimeapi.PodSandboxConfig
	workload  *runtimeapi.ContainerConfig
	sandbox   string
	container string
}

// newPod makes the files that kubelet makes for a pod, and the requests.
func (l *lab) newPod(s *side) (*pod, error) {
	number := l.next
	l.next++
	name := fmt.Sprintf("bench-%d", number)
	dir := filepath.Join(l.node.Dir, "pods", name)
	for _, sub := range []string{"logs", "token"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make directory of pod %s: %w", name, err)
		}
	}
	for _, file := range []string{"hosts", "termination-log", "token/token"} {
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o644); err != nil {
			return nil, fmt.Errorf("make file of pod %s: %w", name, err)
		}
	}
	ids := []*runtimeapi.IDMapping{{
		HostId: l.node.Kubelet().Start + uint32(number%kubeletRanges)*labnode.IDsPerRange,
		Length: labnode.IDsPerRange,
	}}
	options := &runtimeapi.NamespaceOption{
		Pid:           runtimeapi.NamespaceMode_CONTAINER,
		UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids},
	}
	return &pod{
		config: &runtimeapi.PodSandboxConfig{
			Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: name + "-" + l.node.Name},
			Hostname:     name,
			LogDirectory: filepath.Join(dir, "logs"),
			DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"svc.cluster.local"}},
			Linux: &runtimeapi.LinuxPodSandboxConfig{
				CgroupParent:    s.cgroupParent(l),
				SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options},
			},
		},
		workload: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "sleep"},
			Image:    &runtimeapi.ImageSpec{Image: l.image},
			Command:  []string{"sleep", "infinity"},
			LogPath:  "0.log",
			Mounts:   mounts(dir, ids),
			Linux: &runtimeapi.LinuxContainerConfig{
				Resources:       &runtimeapi.LinuxContainerResources{CpuShares: 2},
				SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: options},
			},
		},
	}, nil
}

// mounts are those that nearly every pod has.
func mounts(dir string, ids []*runtimeapi.IDMapping) []*runtimeapi.Mount {
	mount := func(from, to string, readonly bool) *runtimeapi.Mount {
		return &runtimeapi.Mount{
			HostPath: filepath.Join(dir, from), ContainerPath: to, Readonly: readonly, UidMappings: ids, GidMappings: ids,
		}
	}
	return []*runtimeapi.Mount{
		mount("token", "/var/run/secrets/kubernetes.io/serviceaccount", true),
		mount("hosts", "/etc/hosts", false),
		mount("termination-log", "/dev/termination-log", false),
	}
}

// call is one CRI call of a pod's life.
type call struct {
	figure string
	do     func(context.Context) error
}

// start brings a pod up until its container runs.
func (s *side) start(ctx context.Context, p *pod, into figures) error {
	return timed(ctx, into, startTime, []call{
		{runPodSandbox, func(ctx context.Context) error {
			resp, err := s.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.config})
			p.sandbox = resp.GetPodSandboxId()
			return err
		}},
		{createContainer, func(ctx context.Context) error {
			resp, err := s.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
				PodSandboxId: p.sandbox, SandboxConfig: p.config, Config: p.workload,
			})
			p.container = resp.GetContainerId()
			return err
		}},
		{startContainer, func(ctx context.Context) error {
			_, err := s.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: p.container})
			return err
		}},
	})
}

// stop removes a pod by the calls that kubelet makes. There is no grace period: the container's program would
// let it pass, and the figure would be of that.
func (s *side) stop(ctx context.Context, p *pod, into figures) error {
	return timed(ctx, into, stopTime, []call{
		{stopContainer, func(ctx context.Context) error {
			_, err := s.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: p.container})
			return err
		}},
		{stopPodSandbox, func(ctx context.Context) error {
			_, err := s.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.sandbox})
			return err
		}},
		{removeContainer, func(ctx context.Context) error {
			_, err := s.runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: p.container})
			return err
		}},
		{removePodSandbox, func(ctx context.Context) error {
			_, err := s.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.sandbox})
			return err
		}},
	})
}

// timed makes the calls in their order and records what each took, and all of them.
func timed(ctx context.Context, into figures, total string, calls []call) error {
	begin := time.Now()
	for _, c := range calls {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		callBegin := time.Now()
		err := c.do(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", c.figure, err)
		}
		into.add(c.figure, milliseconds(time.Since(callBegin)))
	}
	into.add(total, milliseconds(time.Since(begin)))
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
