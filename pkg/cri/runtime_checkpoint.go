package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// checkpointTimeout bounds CheckpointContainer where the request does not; it is kubelet's for calls of
// the runtime.
const checkpointTimeout = 2 * time.Minute

// CheckpointContainer writes an archive that checkpointctl can read and CreateContainer can run.
func (s *runtimeService) CheckpointContainer(ctx context.Context, req *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	if err := checkHostPath("location", req.GetLocation()); err != nil {
		return nil, err
	}
	if info, err := os.Stat(filepath.Dir(req.GetLocation())); err != nil || !info.IsDir() {
		return nil, invalid("location is %q: want a file in a directory that exists", req.GetLocation())
	}
	if info, err := os.Lstat(req.GetLocation()); err == nil && !info.Mode().IsRegular() {
		return nil, invalid("location is %q, which exists and is no regular file", req.GetLocation())
	}
	timeout, err := checkpointBound(req.GetTimeout())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := s.Containers.Checkpoint(ctx, req.GetContainerId(), req.GetLocation(), checkpointOptions()); err != nil {
		return nil, err
	}
	return &runtimeapi.CheckpointContainerResponse{}, nil
}

func checkpointBound(timeout int64) (time.Duration, error) {
	switch {
	case timeout < 0:
		return 0, invalid("timeout is %d s: want 0 or more", timeout)
	case timeout == 0:
		return checkpointTimeout, nil
	}
	return seconds(timeout), nil
}

func checkpointOptions() container.CheckpointOptions {
	return container.CheckpointOptions{Status: func(rec container.Record) any { return containerStatus(rec) }}
}

// checkHostPath accepts a path as it is: absolute and without detours.
func checkHostPath(field, path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || !printable(path) {
		return invalid("%s is %q: want an absolute path of printable characters without .., . or double slashes", field, path)
	}
	return nil
}

// checkDeadline holds what CRI demands of the callers of a pod's checkpoint.
func checkDeadline(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		return invalid("the call has no deadline, and CRI demands one")
	}
	return nil
}

// checkNoOptions refuses runtime-specific options, of which there are none.
func checkNoOptions(options map[string]string) error {
	for key := range options {
		return invalid("options has %q: there are no options", key)
	}
	return nil
}

// CheckpointPod writes an archive for each container and a description of the pod.
func (s *runtimeService) CheckpointPod(ctx context.Context, req *runtimeapi.CheckpointPodRequest) (*runtimeapi.CheckpointPodResponse, error) {
	if err := checkDeadline(ctx); err != nil {
		return nil, err
	}
	if err := checkNoOptions(req.GetOptions()); err != nil {
		return nil, err
	}
	if err := checkIDs(req.GetContainerIds()); err != nil {
		return nil, err
	}
	if err := checkEmptyDir(req.GetOutputPath()); err != nil {
		return nil, err
	}
	sb, err := s.Sandboxes.Get(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if err := s.Containers.CheckpointPod(ctx, sb, req.GetContainerIds(), req.GetOutputPath(), checkpointOptions()); err != nil {
		return nil, err
	}
	return &runtimeapi.CheckpointPodResponse{}, nil
}

func checkIDs(ids []string) error {
	if len(ids) == 0 {
		return invalid("container_ids is empty")
	}
	seen := map[string]bool{}
	for _, id := range ids {
		if err := checkID("container_ids", id); err != nil {
			return err
		}
		if seen[id] {
			return invalid("container_ids has %s twice", id)
		}
		seen[id] = true
	}
	return nil
}

// checkEmptyDir accepts a directory of the caller's in which nothing is yet.
func checkEmptyDir(path string) error {
	if err := checkHostPath("output_path", path); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() {
		return invalid("output_path is %q: want a directory that exists", path)
	}
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read output_path: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(1)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read output_path: %w", err)
	}
	if len(names) > 0 {
		return invalid("output_path is %q, which is not empty: it has %q", path, strings.Join(names, " "))
	}
	return nil
}
