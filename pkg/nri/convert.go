package nri

import (
	"cmp"
	"maps"
	"strings"
	"time"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// podOf converts a sandbox. Without a process its pid is 0; its namespaces have their paths either way.
func podOf(rec sandbox.Record) *api.PodSandbox {
	md, spec := rec.Spec.Metadata, rec.RuntimeSpec()
	pod := &api.PodSandbox{
		Id:             rec.ID,
		Name:           md.Name,
		Uid:            md.UID,
		Namespace:      md.Namespace,
		Labels:         rec.Spec.Labels,
		Annotations:    spec.Annotations,
		RuntimeHandler: rec.Spec.RuntimeHandler,
		Pid:            uint32(rec.PID),
		Linux: &api.LinuxPodSandbox{
			PodOverhead:  resourcesOf(cmp.Or(rec.Overhead, rec.Spec.Overhead)),
			PodResources: resourcesOf(cmp.Or(rec.Resources, rec.Spec.Resources)),
			CgroupParent: rec.Spec.CgroupParent,
			Namespaces:   api.FromOCILinuxNamespaces(spec.Linux.Namespaces),
		},
	}
	for _, ip := range rec.IPs {
		pod.Ips = append(pod.Ips, ip.String())
	}
	return pod
}

// convertContainer converts a container with its specification, which may lack what it has for a while.
func convertContainer(rec container.Record, spec *specs.Spec) *api.Container {
	ctr := &api.Container{
		Id:            rec.ID,
		PodSandboxId:  rec.SandboxID,
		Name:          rec.Spec.Metadata.Name,
		State:         states[rec.State],
		Labels:        rec.Spec.Labels,
		Annotations:   merged(spec.Annotations, rec.Spec.Annotations),
		Mounts:        api.FromOCIMounts(spec.Mounts),
		Hooks:         api.FromOCIHooks(spec.Hooks),
		Pid:           rec.PID,
		CreatedAt:     nanos(rec.CreatedAt),
		StartedAt:     nanos(rec.StartedAt),
		FinishedAt:    nanos(rec.FinishedAt),
		ExitCode:      rec.ExitCode,
		StatusReason:  rec.Reason,
		StatusMessage: rec.Message,
		User:          &api.User{Uid: rec.User.UID, Gid: rec.User.GID, AdditionalGids: rec.User.AdditionalGids},
		Image:         imageOf(rec),
		Linux:         linuxOf(spec.Linux),
	}
	for _, name := range rec.Spec.CDIDevices {
		ctr.CDIDevices = append(ctr.CDIDevices, &api.CDIDevice{Name: name})
	}
	ctr.Linux.SeccompProfile = profileOf(rec.Spec.Security.Seccomp)
	if p := spec.Process; p != nil {
		addProcess(ctr, p)
	}
	return ctr
}

// states are those that plugins know; a container that is being made has none yet.
var states = map[container.State]api.ContainerState{
	container.StateCreated: api.ContainerState_CONTAINER_CREATED,
	container.StateRunning: api.ContainerState_CONTAINER_RUNNING,
	container.StateExited:  api.ContainerState_CONTAINER_STOPPED,
}

func addProcess(ctr *api.Container, p *specs.Process) {
	ctr.Args, ctr.Env = p.Args, p.Env
	for _, l := range p.Rlimits {
		ctr.Rlimits = append(ctr.Rlimits, &api.POSIXRlimit{Type: l.Type, Hard: l.Hard, Soft: l.Soft})
	}
	ctr.Linux.OomScoreAdj = api.Int(p.OOMScoreAdj)
	ctr.Linux.IoPriority = api.FromOCILinuxIOPriority(p.IOPriority)
	if p.Scheduler != nil {
		ctr.Linux.Scheduler = api.FromOCILinuxScheduler(p.Scheduler)
	}
}

func linuxOf(l *specs.Linux) *api.LinuxContainer {
	if l == nil {
		return &api.LinuxContainer{}
	}
	out := &api.LinuxContainer{
		Namespaces:  api.FromOCILinuxNamespaces(l.Namespaces),
		Devices:     api.FromOCILinuxDevices(l.Devices),
		Resources:   api.FromOCILinuxResources(l.Resources, nil),
		CgroupsPath: l.CgroupsPath,
		Sysctl:      maps.Clone(l.Sysctl),
		NetDevices:  api.FromOCILinuxNetDevices(l.NetDevices),
	}
	if l.Seccomp != nil {
		out.SeccompPolicy = api.FromOCILinuxSeccomp(l.Seccomp)
	}
	if rdt := l.IntelRdt; rdt != nil {
		out.Rdt = &api.LinuxRdt{
			ClosId:           api.String(rdt.ClosID),
			Schemata:         api.RepeatedString(rdt.Schemata),
			EnableMonitoring: api.Bool(rdt.EnableMonitoring),
		}
	}
	return out
}

func imageOf(rec container.Record) *api.Image {
	image := &api.Image{Name: cmp.Or(rec.Spec.UserImage, rec.Spec.Image), ConfigDigest: rec.ImageID}
	if _, digest, ok := strings.Cut(rec.ImageRef, "@"); ok {
		image.Digest = digest
	}
	return image
}

// profileOf is nil where the client names no profile.
func profileOf(p ocispec.Profile) *api.SecurityProfile {
	switch p.Type {
	case ocispec.ProfileRuntimeDefault:
		return &api.SecurityProfile{ProfileType: api.SecurityProfile_RUNTIME_DEFAULT}
	case ocispec.ProfileLocalhost:
		return &api.SecurityProfile{ProfileType: api.SecurityProfile_LOCALHOST, LocalhostRef: p.Ref}
	case ocispec.ProfileUnconfined:
		return &api.SecurityProfile{ProfileType: api.SecurityProfile_UNCONFINED}
	}
	return nil
}

func merged(a, b map[string]string) map[string]string {
	out := make(map[string]string, len(a)+len(b))
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}

// nanos is 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
