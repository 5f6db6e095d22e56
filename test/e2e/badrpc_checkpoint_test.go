package e2e

import (
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// None of these needs CRIU: they are refused before it is asked.

func (b *badInput) badCheckpoints(odd string) []badCase {
	with := func(name, says, location string, timeout int64) badCase {
		return badCase{name, &runtimeapi.CheckpointContainerRequest{ContainerId: b.running.ID, Location: location, Timeout: timeout}, codes.InvalidArgument, says}
	}
	return []badCase{
		with("no location", "location", "", 0),
		with("relative location", "location", "checkpoint.tar", 0),
		with("odd location", "location", "/"+odd, 0),
		with("location that climbs", "location", b.dir+"/../x.tar", 0),
		with("location in a directory that does not exist", "location", b.dir+"/none/x.tar", 0),
		with("location that is a device", "location", "/dev/null", 0),
		with("timeout below 0", "timeout", b.dir+"/x.tar", -1),
		{
			"container that does not run", &runtimeapi.CheckpointContainerRequest{ContainerId: b.containers[1].ID, Location: b.dir + "/x.tar"},
			codes.FailedPrecondition, b.containers[1].ID,
		},
	}
}

func (b *badInput) badPodCheckpoints(odd string) []badCase {
	with := func(name, says string, change func(*runtimeapi.CheckpointPodRequest)) badCase {
		req := &runtimeapi.CheckpointPodRequest{PodSandboxId: b.pods[0].ID, ContainerIds: []string{b.running.ID}, OutputPath: b.dir}
		change(req)
		return badCase{name, req, codes.InvalidArgument, says}
	}
	return []badCase{
		with("no containers", "container_ids", func(r *runtimeapi.CheckpointPodRequest) { r.ContainerIds = nil }),
		with("container without an id", "container_ids", func(r *runtimeapi.CheckpointPodRequest) { r.ContainerIds = []string{""} }),
		with("container twice", "twice", func(r *runtimeapi.CheckpointPodRequest) { r.ContainerIds = append(r.ContainerIds, b.running.ID) }),
		with("relative path", "output_path", func(r *runtimeapi.CheckpointPodRequest) { r.OutputPath = "out" }),
		with("odd path", "output_path", func(r *runtimeapi.CheckpointPodRequest) { r.OutputPath = "/" + odd }),
		with("path that does not exist", "output_path", func(r *runtimeapi.CheckpointPodRequest) { r.OutputPath = b.dir + "/none" }),
		with("path of a file", "output_path", func(r *runtimeapi.CheckpointPodRequest) { r.OutputPath = "/etc/passwd" }),
		with("directory that is not empty", "output_path", func(r *runtimeapi.CheckpointPodRequest) { r.OutputPath = "/etc" }),
		with("option", "options", func(r *runtimeapi.CheckpointPodRequest) { r.Options = map[string]string{"fast": "yes"} }),
	}
}

func (b *badInput) badRestores(odd string) []badCase {
	with := func(name, says string, change func(*runtimeapi.RestorePodRequest)) badCase {
		req := &runtimeapi.RestorePodRequest{
			CheckpointPath:   b.dir,
			Config:           b.pods[0].Request.Config,
			ContainerConfigs: []*runtimeapi.ContainerConfig{b.pods[0].ContainerConfig(b.image)},
		}
		change(req)
		return badCase{name, req, codes.InvalidArgument, says}
	}
	return []badCase{
		with("no containers", "container_configs", func(r *runtimeapi.RestorePodRequest) { r.ContainerConfigs = nil }),
		with("container without a name", "metadata.name", func(r *runtimeapi.RestorePodRequest) { r.ContainerConfigs[0].Metadata = nil }),
		with("container twice", "twice", func(r *runtimeapi.RestorePodRequest) {
			r.ContainerConfigs = append(r.ContainerConfigs, r.ContainerConfigs[0])
		}),
		with("relative path", "checkpoint_path", func(r *runtimeapi.RestorePodRequest) { r.CheckpointPath = "in" }),
		with("odd path", "checkpoint_path", func(r *runtimeapi.RestorePodRequest) { r.CheckpointPath = "/" + odd }),
		with("path that does not exist", "checkpoint_path", func(r *runtimeapi.RestorePodRequest) { r.CheckpointPath = b.dir + "/none" }),
		with("path of a file", "checkpoint_path", func(r *runtimeapi.RestorePodRequest) { r.CheckpointPath = "/etc/passwd" }),
		with("directory without a checkpoint", "checkpoint", func(*runtimeapi.RestorePodRequest) {}),
		with("option", "options", func(r *runtimeapi.RestorePodRequest) { r.Options = map[string]string{"fast": "yes"} }),
	}
}
