package cri

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// PauseTask makes the task a thing that is left behind until it is resumed.
func (e *fuzzEngine) PauseTask(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t, ok := e.tasks[id]; !ok || !t.exit.At.IsZero() {
		return fmt.Errorf("process of task %s: %w", id, errdefs.ErrNotFound)
	}
	e.add("frozen", id)
	return nil
}

func (e *fuzzEngine) ResumeTask(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.things, "frozen "+id)
	return nil
}

func (e *fuzzEngine) DumpTask(_ context.Context, d container.Dump) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.things["frozen "+d.ID] {
		return fmt.Errorf("task %s is not frozen", d.ID)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(d.Images, "inventory.img"), []byte("image"), 0o600),
		os.WriteFile(filepath.Join(d.Work, "dump.log"), nil, 0o600),
	)
}

func (e *fuzzEngine) RestoreTask(ctx context.Context, group string, io container.Stdio, d container.Dump) (uint32, error) {
	if _, err := os.Stat(d.Images); err != nil {
		return 0, err
	}
	return e.CreateTask(ctx, group, d.ID, io)
}

func (e *fuzzEngine) CanCheckpoint(context.Context, string, string) (bool, error) { return true, nil }

func (e *fuzzEngine) ReadDiff(_ context.Context, _, _ string, w io.Writer) error {
	return tar.NewWriter(w).Close()
}

func (e *fuzzEngine) ApplyDiff(_ context.Context, _, _ string, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func (e *fuzzEngine) ReadLayers(context.Context, string, func(io.Reader) error) error { return nil }

// podCheckpoint is where the good requests for a pod's checkpoint write it.
func (p *program) podCheckpoint() string { return filepath.Join(p.world.dirs.host, "pod-checkpoint") }

// checkpointRequest fills in the pod that the variant chooses with those of its containers that run, and makes
// the directory, which is empty unless a checkpoint was made before.
func (p *program) checkpointRequest(req *runtimeapi.CheckpointPodRequest, variant byte) {
	req.OutputPath = p.podCheckpoint()
	_ = os.Mkdir(req.OutputPath, 0o700)
	sandboxes := p.world.sandboxes.List()
	if len(sandboxes) == 0 {
		return
	}
	sb := sandboxes[int(variant)%len(sandboxes)]
	for _, rec := range p.world.containers.List() {
		if rec.SandboxID == sb.ID && rec.State == container.StateRunning {
			req.ContainerIds = append(req.ContainerIds, rec.ID)
		}
	}
}

// checkpointSeeds take a pod of the host's ids through a checkpoint, its end, and a restore that runs.
func checkpointSeeds() [][]byte {
	begin := sequence(step("RunPodSandbox", 0), step("CreateContainer", 0), step("StartContainer", 0), step("CheckpointPod", 0))
	return [][]byte{
		sequence(begin, step("RestorePod", 0), step("RemovePodSandbox", 0), step("RestorePod", 0), step("StartContainer", 0), step("CheckpointContainer", 0)),
		sequence(begin, step("RemovePodSandbox", 0), step("RestorePod", variantUserNS), step("RestorePod", 1), step("RestorePod", variantHostNetwork)),
	}
}
