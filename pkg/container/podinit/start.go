package podinit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// Start runs the process in the sandbox's namespaces and pins its PID namespace. What it leaves
// behind on an error, Stop takes away.
func (r *Runner) Start(ctx context.Context, rec sandbox.Record) (pid int, err error) {
	if pid, err = r.start(ctx, rec); err != nil {
		return 0, fmt.Errorf("start process of sandbox %s: %w", rec.ID, err)
	}
	klog.FromContext(ctx).V(4).Info("Process of pod sandbox started", "sandbox", rec.ID, "pid", pid)
	return pid, nil
}

func (r *Runner) start(ctx context.Context, rec sandbox.Record) (int, error) {
	if err := r.makeRootfs(); err != nil {
		return 0, err
	}
	if err := r.record(ctx, rec); err != nil {
		return 0, err
	}
	pid, err := r.opts.Tasks.CreateTask(ctx, rec.Group(), rec.ID, container.Stdio{})
	if err != nil {
		return 0, err
	}
	// It is process 1 of its namespace already, and waits to be started.
	if err := r.opts.Pins.PinPID(int(pid), rec.ID, r.pin(rec.ID)); err != nil {
		return 0, err
	}
	return int(pid), r.opts.Tasks.StartTask(ctx, rec.ID)
}

// record builds the OCI specification and stores it with containerd.
func (r *Runner) record(ctx context.Context, rec sandbox.Record) error {
	handler, err := r.handler(rec)
	if err != nil {
		return err
	}
	spec, err := r.specification(rec)
	if err != nil {
		return err
	}
	return r.opts.Records.CreateRecord(ctx, container.EngineRecord{
		ID:            rec.ID,
		Snapshotter:   handler.Snapshotter,
		Runtime:       handler.Runtime,
		BinaryName:    handler.BinaryName,
		Options:       handler.Options,
		SystemdCgroup: r.opts.SystemdCgroup,
		Group:         rec.ShimGroup,
		Labels:        labels(rec),
		Spec:          spec,
	})
}

// makeRootfs makes what is missing: after a reboot all of it, otherwise nothing.
func (r *Runner) makeRootfs() error {
	for _, dir := range append([]string{"/"}, ocispec.InitDirs()...) {
		path := filepath.Join(r.rootfs(), dir)
		// Open to all: in the pod root is not the host's, and the process is not root.
		if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make root filesystem: %w", err)
		}
	}
	program, err := os.OpenFile(filepath.Join(r.rootfs(), ocispec.InitProgram), os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return fmt.Errorf("make root filesystem: %w", err)
	}
	return program.Close()
}

func (r *Runner) specification(rec sandbox.Record) (*specs.Spec, error) {
	driver := ocispec.CgroupDriverCgroupfs
	if r.opts.SystemdCgroup {
		driver = ocispec.CgroupDriverSystemd
	}
	cgroup, err := ocispec.CgroupsPath(driver, rec.Spec.CgroupParent, rec.ID)
	if err != nil {
		return nil, err
	}
	md := rec.Spec.Metadata
	return ocispec.BuildPodInit(ocispec.PodInit{
		Identity: ocispec.Identity{
			SandboxID:        rec.ID,
			SandboxName:      md.Name,
			SandboxNamespace: md.Namespace,
			SandboxUID:       md.UID,
		},
		RootPath: r.rootfs(),
		Program:  r.opts.Program,
		Namespaces: ocispec.Namespaces{
			User:    rec.Pins.User,
			Network: pinnedOrHost(rec.Pins.Network),
			IPC:     pinnedOrHost(rec.Pins.IPC),
			UTS:     pinnedOrHost(rec.Pins.UTS),
		},
		Mapping:     rec.Mapping(),
		CgroupsPath: cgroup,
		Host:        r.opts.Host,
	})
}

func pinnedOrHost(path string) ocispec.Namespace {
	return ocispec.Namespace{Host: path == "", Path: path}
}

// labels are those that tools of a node read: to cAdvisor a record of this kind is the pod, from
// whose process it reads the pod's network.
func labels(rec sandbox.Record) map[string]string {
	out := map[string]string{}
	for k, v := range rec.Spec.Labels {
		out[k] = v
	}
	md := rec.Spec.Metadata
	out["io.cri-containerd.kind"] = "sandbox"
	out["io.kubernetes.pod.name"] = md.Name
	out["io.kubernetes.pod.namespace"] = md.Namespace
	out["io.kubernetes.pod.uid"] = md.UID
	return out
}
