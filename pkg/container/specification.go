package container

import (
	"context"
	"os"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/ocispec/cdidev"
	"github.com/userns-shim/userns-shim/pkg/ocispec/hostdev"
	"github.com/userns-shim/userns-shim/pkg/ocispec/qosclass"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// specification is the OCI specification with the edits of the host's files.
func (m *Manager) specification(ctx context.Context, b *build) (*specs.Spec, error) {
	spec, err := m.builtSpecification(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := m.opts.Classes.Apply(spec, qosclass.Request{
		Container:            b.rec.Spec.Metadata.Name,
		ContainerAnnotations: b.rec.Spec.Annotations,
		PodAnnotations:       b.sb.Spec.Annotations,
	}); err != nil {
		return nil, err
	}
	return spec, cdidev.Inject(spec, cdidev.Request{
		SpecDirs:    m.opts.CDISpecDirs,
		Devices:     b.rec.Spec.CDIDevices,
		Annotations: b.rec.Spec.Annotations,
	})
}

// builtSpecification resolves what the spec leaves to the host, and builds the OCI specification.
func (m *Manager) builtSpecification(ctx context.Context, b *build) (*specs.Spec, error) {
	cgroup, err := ocispec.CgroupsPath(m.cgroupDriver(), b.sb.Spec.CgroupParent, b.rec.ID)
	if err != nil {
		return nil, err
	}
	devices, err := hostDevices(b.rec.Spec, !b.handler.PrivilegedWithoutHostDevices)
	if err != nil {
		return nil, err
	}
	volumes, err := m.volumes(ctx, b)
	if err != nil {
		return nil, err
	}
	namespaces, err := m.namespacesOf(b)
	if err != nil {
		return nil, err
	}
	host, err := m.hostOf(ctx, b)
	if err != nil {
		return nil, err
	}
	spec, md := b.rec.Spec, b.sb.Spec.Metadata
	return ocispec.Build(ocispec.Container{
		ID: b.rec.ID,
		Identity: ocispec.Identity{
			SandboxID:        b.sb.ID,
			SandboxName:      md.Name,
			SandboxNamespace: md.Namespace,
			SandboxUID:       md.UID,
			ContainerName:    spec.Metadata.Name,
			ImageName:        spec.Image,
		},
		RootPath: m.Paths(b.rec.ID).Rootfs,
		Process: ocispec.Process{
			Image:      b.image.Config,
			Command:    spec.Command,
			Args:       spec.Args,
			WorkingDir: spec.WorkingDir,
			Env:        spec.Env,
			TTY:        spec.TTY,
			Hostname:   hostname(b.sb),
		},
		User:        b.rec.User,
		Namespaces:  namespaces,
		Mapping:     b.sb.Mapping(),
		Security:    spec.Security,
		SELinux:     b.rec.SELinux,
		Resources:   spec.Resources,
		CgroupsPath: cgroup,
		Files:       m.podFiles(b.sb),
		Mounts:      volumes,
		Devices:     devices,

		ConfineDevices: b.handler.PrivilegedWithoutHostDevices,

		Annotations: passedAnnotations(b),
		Host:        host,
	})
}

func (m *Manager) cgroupDriver() ocispec.CgroupDriver {
	if m.opts.SystemdCgroup {
		return ocispec.CgroupDriverSystemd
	}
	return ocispec.CgroupDriverCgroupfs
}

// hostname is for $HOSTNAME; the UTS namespace has it already.
func hostname(sb sandbox.Record) string {
	if sb.Spec.Hostname != "" {
		return sb.Spec.Hostname
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// hostOf is the host as the handler's OCI runtime lets it be used.
func (m *Manager) hostOf(ctx context.Context, b *build) (ocispec.Host, error) {
	host := m.opts.Host
	asks := slices.ContainsFunc(b.rec.Spec.Mounts, func(v ocispec.Mount) bool { return v.RecursiveReadOnly })
	if !asks || m.opts.RecursiveReadOnly == nil {
		return host, nil
	}
	able, err := m.opts.RecursiveReadOnly(ctx, m.handlerName(b.sb))
	host.RecursiveReadOnly = host.RecursiveReadOnly && able
	return host, err
}

// passedAnnotations are those that the handler shows the OCI runtime. A container's win over its pod's.
func passedAnnotations(b *build) map[string]string {
	out := map[string]string{}
	for _, from := range []struct {
		annotations map[string]string
		patterns    []string
	}{{b.sb.Spec.Annotations, b.handler.PodAnnotations}, {b.rec.Spec.Annotations, b.handler.ContainerAnnotations}} {
		for name, value := range from.annotations {
			if slices.ContainsFunc(from.patterns, func(pattern string) bool {
				ok, err := path.Match(pattern, name)
				return err == nil && ok
			}) {
				out[name] = value
			}
		}
	}
	return out
}

// hostDevices are those asked for, and for a privileged container all others of the host unless they are
// to be kept out.
func hostDevices(spec Spec, others bool) ([]ocispec.HostDevice, error) {
	var out []ocispec.HostDevice
	for _, d := range spec.Devices {
		resolved, err := hostdev.Resolve(d)
		if err != nil {
			return nil, err
		}
		out = append(out, resolved...)
	}
	if !spec.Security.Privileged || !others {
		return out, nil
	}
	all, err := hostdev.All()
	if err != nil {
		return nil, err
	}
	return append(out, all...), nil
}

// namespacesOf joins what the sandbox pinned.
func (m *Manager) namespacesOf(b *build) (ocispec.Namespaces, error) {
	pins := b.sb.Pins
	pid, err := m.pidNamespace(b)
	return ocispec.Namespaces{
		User:    pins.User,
		Network: pinnedOrHost(pins.Network),
		IPC:     pinnedOrHost(pins.IPC),
		UTS:     pinnedOrHost(pins.UTS),
		PID:     pid,
	}, err
}

func pinnedOrHost(path string) ocispec.Namespace {
	return ocispec.Namespace{Host: path == "", Path: path}
}

func (m *Manager) podFiles(sb sandbox.Record) ocispec.PodFiles {
	p := sandbox.PathsOf(m.opts.StateDir, sb.ID)
	files := ocispec.PodFiles{Hostname: p.Hostname, ResolvConf: p.ResolvConf, Shm: p.Shm}
	if _, err := os.Lstat(p.Hosts); err == nil {
		files.Hosts = p.Hosts
	}
	if sb.Spec.Namespaces.IPC == sandbox.ModeNode {
		files.Shm = "/dev/shm"
	}
	return files
}
