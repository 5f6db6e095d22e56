package cri

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/checkpoint"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// undoTimeout bounds the removal of a pod that could not be restored.
const undoTimeout = 2 * time.Minute

// RestorePod makes the sandbox, and of each archive in the directory a container that goes on when it is started.
func (s *runtimeService) RestorePod(ctx context.Context, req *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	if err := checkDeadline(ctx); err != nil {
		return nil, err
	}
	if err := checkNoOptions(req.GetOptions()); err != nil {
		return nil, err
	}
	specs, err := restoreSpecs(req.GetContainerConfigs())
	if err != nil {
		return nil, err
	}
	archives, err := podArchives(req.GetCheckpointPath(), specs)
	if err != nil {
		return nil, err
	}
	sb, err := s.newSandbox(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, err := s.restoreContainers(ctx, sb, specs, archives)
	if err == nil {
		if err = ctx.Err(); err == nil {
			return resp, nil
		}
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	_, undoErr := s.RemovePodSandbox(clean, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sb.ID})
	return nil, errors.Join(err, undoErr)
}

func restoreSpecs(configs []*runtimeapi.ContainerConfig) ([]container.Spec, error) {
	if len(configs) == 0 {
		return nil, invalid("container_configs is empty")
	}
	names := map[string]bool{}
	var out []container.Spec
	for _, config := range configs {
		spec, err := containerSpec(config)
		if err != nil {
			return nil, err
		}
		if names[spec.Metadata.Name] {
			return nil, invalid("container_configs has the name %q twice", spec.Metadata.Name)
		}
		names[spec.Metadata.Name] = true
		out = append(out, spec)
	}
	return out, nil
}

// podArchives returns the archive of each container by its name.
func podArchives(path string, specs []container.Spec) (map[string]string, error) {
	if err := checkHostPath("checkpoint_path", path); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, invalid("checkpoint_path: %v", err)
	}
	defer root.Close()
	pod, err := checkpoint.ReadPod(root)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, id := range pod.Containers {
		out[name] = filepath.Join(path, checkpoint.ArchiveName(id))
	}
	var want []string
	for _, spec := range specs {
		want = append(want, spec.Metadata.Name)
	}
	slices.Sort(want)
	if has := slices.Sorted(maps.Keys(out)); !slices.Equal(has, want) {
		return nil, invalid("container_configs has the names %q, and the checkpoint %q", want, has)
	}
	return out, nil
}

// newSandbox runs a sandbox that was not there before: it is removed if its containers cannot be restored.
func (s *runtimeService) newSandbox(ctx context.Context, req *runtimeapi.RestorePodRequest) (sandbox.Record, error) {
	spec, err := sandboxSpec(req.GetConfig(), req.GetRuntimeHandler(), cgroupDriver(s.Node.SystemdCgroup()))
	if err != nil {
		return sandbox.Record{}, err
	}
	for _, rec := range s.Sandboxes.List() {
		if rec.Spec.Metadata == spec.Metadata {
			return sandbox.Record{}, fmt.Errorf("restore pod %s/%s: %w: it is sandbox %s", spec.Metadata.Namespace, spec.Metadata.Name, sandbox.ErrExists, rec.ID)
		}
	}
	if spec.Namespaces.Network != sandbox.ModeNode {
		if err := s.Node.NetworkReady(ctx); err != nil {
			return sandbox.Record{}, err
		}
	}
	return s.Sandboxes.Run(ctx, spec)
}

func (s *runtimeService) restoreContainers(ctx context.Context, sb sandbox.Record, specs []container.Spec, archives map[string]string) (*runtimeapi.RestorePodResponse, error) {
	resp := &runtimeapi.RestorePodResponse{PodSandboxId: sb.ID}
	for _, spec := range specs {
		id, err := s.Containers.Restore(ctx, sb, spec, archives[spec.Metadata.Name])
		if err != nil {
			return nil, err
		}
		resp.RestoredContainers = append(resp.RestoredContainers, &runtimeapi.RestoredContainer{Name: spec.Metadata.Name, ContainerId: id})
	}
	return resp, nil
}
