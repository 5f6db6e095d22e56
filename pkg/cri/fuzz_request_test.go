package cri

import (
	"fmt"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bits of a step's variant for RunPodSandbox; the lowest two are the pod's number.
const (
	variantUserNS = 1 << (iota + 2)
	variantMapped
	variantSharedPID
	variantHostNetwork
)

// request is a good request for the method. The variant chooses what it is about.
func (p *program) request(method protoreflect.MethodDescriptor, variant byte) proto.Message {
	msg := newMessage(method.Input())
	switch req := msg.(type) {
	case *runtimeapi.RunPodSandboxRequest:
		req.Config = p.podConfig(variant)
	case *runtimeapi.CreateContainerRequest:
		req.Config = p.containerConfig(variant)
	case *runtimeapi.CheckpointContainerRequest:
		req.Location = filepath.Join(p.world.dirs.host, "checkpoint.tar")
	case *runtimeapi.CheckpointPodRequest:
		p.checkpointRequest(req, variant)
	case *runtimeapi.RestorePodRequest:
		req.CheckpointPath, req.Config = p.podCheckpoint(), p.podConfig(variant)
		req.ContainerConfigs = []*runtimeapi.ContainerConfig{p.containerConfig(variant)}
	case *runtimeapi.ExecSyncRequest:
		req.Cmd = []string{"true"}
	case *runtimeapi.ExecRequest:
		req.Cmd, req.Stdout = []string{"true"}, true
	case *runtimeapi.AttachRequest:
		req.Stdout = true
	case *runtimeapi.PortForwardRequest:
		req.Port = []int32{80}
	case *runtimeapi.UpdateContainerResourcesRequest:
		req.Linux = &runtimeapi.LinuxContainerResources{CpuShares: 100}
	case *runtimeapi.UpdatePodSandboxResourcesRequest:
		req.Resources = &runtimeapi.LinuxContainerResources{CpuShares: 100}
	case *runtimeapi.PullImageRequest:
		req.Image = &runtimeapi.ImageSpec{Image: fmt.Sprintf("other:%d", variant%4)}
	case *runtimeapi.ImageStatusRequest:
		req.Image = &runtimeapi.ImageSpec{Image: fuzzImage}
	case *runtimeapi.RemoveImageRequest:
		req.Image = &runtimeapi.ImageSpec{Image: fmt.Sprintf("other:%d", variant%4)}
	}
	p.name(msg.ProtoReflect(), variant)
	return msg
}

// name fills in the ids of the sandbox and the container that the variant chooses.
func (p *program) name(msg protoreflect.Message, variant byte) {
	var sandboxes, containers []string
	for _, rec := range p.world.sandboxes.List() {
		sandboxes = append(sandboxes, rec.ID)
	}
	for _, rec := range p.world.containers.List() {
		containers = append(containers, rec.ID)
	}
	for field, ids := range map[protoreflect.Name][]string{"pod_sandbox_id": sandboxes, "container_id": containers} {
		id := strings.Repeat("0", 64)
		if len(ids) > 0 {
			id = ids[int(variant)%len(ids)]
		}
		if f := msg.Descriptor().Fields().ByName(field); f != nil {
			msg.Set(f, protoreflect.ValueOfString(id))
		}
	}
}

func (p *program) podConfig(variant byte) *runtimeapi.PodSandboxConfig {
	name := fmt.Sprintf("p%d", variant%4)
	namespaces := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if variant&variantUserNS != 0 {
		namespaces.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}
		if variant&variantMapped != 0 {
			ids := []*runtimeapi.IDMapping{{HostId: 1<<20 + 65536*uint32(variant%4), Length: 65536}}
			namespaces.UsernsOptions.Uids, namespaces.UsernsOptions.Gids = ids, ids
		}
	}
	if variant&variantSharedPID != 0 {
		namespaces.Pid = runtimeapi.NamespaceMode_POD
	}
	if variant&variantHostNetwork != 0 {
		namespaces.Network = runtimeapi.NamespaceMode_NODE
	}
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name},
		Hostname:     name,
		LogDirectory: filepath.Join(p.world.dirs.log, name),
		Labels:       map[string]string{"app": name},
		PortMappings: []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 8080}},
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"10.0.0.1"}},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    "/kubepods/" + name,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: namespaces},
			Sysctls:         map[string]string{},
		},
	}
}

func (p *program) containerConfig(variant byte) *runtimeapi.ContainerConfig {
	name := fmt.Sprintf("c%d", variant%4)
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: fuzzImage},
		LogPath:  name + ".log",
		Labels:   map[string]string{"app": name},
		Envs:     []*runtimeapi.KeyValue{{Key: "A", Value: []byte("b")}},
		Mounts: []*runtimeapi.Mount{
			{HostPath: p.world.dirs.host + "/file", ContainerPath: "/file", Readonly: true},
			{HostPath: p.world.dirs.host + "/dir", ContainerPath: "/dir"},
			{Image: &runtimeapi.ImageSpec{Image: fuzzImage}, ImageSubPath: "data", ContainerPath: "/image"},
		},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{CpuShares: 10, MemoryLimitInBytes: 1 << 20},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
}
