package cri

import (
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

func containerState(s container.State) runtimeapi.ContainerState {
	switch s {
	case container.StateCreated:
		return runtimeapi.ContainerState_CONTAINER_CREATED
	case container.StateRunning:
		return runtimeapi.ContainerState_CONTAINER_RUNNING
	case container.StateExited:
		return runtimeapi.ContainerState_CONTAINER_EXITED
	}
	return runtimeapi.ContainerState_CONTAINER_UNKNOWN
}

func imageSpec(rec container.Record) *runtimeapi.ImageSpec {
	return &runtimeapi.ImageSpec{Image: rec.Spec.Image, UserSpecifiedImage: rec.Spec.UserImage}
}

func containerMetadata(rec container.Record) *runtimeapi.ContainerMetadata {
	return &runtimeapi.ContainerMetadata{Name: rec.Spec.Metadata.Name, Attempt: rec.Spec.Metadata.Attempt}
}

func listedContainer(rec container.Record) *runtimeapi.Container {
	return &runtimeapi.Container{
		Id:           rec.ID,
		PodSandboxId: rec.SandboxID,
		Metadata:     containerMetadata(rec),
		Image:        imageSpec(rec),
		ImageRef:     rec.ImageRef,
		ImageId:      rec.ImageID,
		State:        containerState(rec.State),
		CreatedAt:    nanos(rec.CreatedAt),
		Labels:       rec.Spec.Labels,
		Annotations:  rec.Spec.Annotations,
	}
}

func containerStatus(rec container.Record) *runtimeapi.ContainerStatus {
	status := &runtimeapi.ContainerStatus{
		Id:          rec.ID,
		Metadata:    containerMetadata(rec),
		State:       containerState(rec.State),
		CreatedAt:   nanos(rec.CreatedAt),
		StartedAt:   nanos(rec.StartedAt),
		FinishedAt:  nanos(rec.FinishedAt),
		ExitCode:    rec.ExitCode,
		Image:       imageSpec(rec),
		ImageRef:    rec.ImageRef,
		ImageId:     rec.ImageID,
		Reason:      rec.Reason,
		Message:     rec.Message,
		Labels:      rec.Spec.Labels,
		Annotations: rec.Spec.Annotations,
		LogPath:     rec.LogPath,
		User:        containerUserOf(rec),
		StopSignal:  signalOf(rec.StopSignal),
	}
	for _, m := range rec.Spec.Mounts {
		status.Mounts = append(status.Mounts, mountOf(m))
	}
	for _, v := range rec.ImageVolumes {
		status.Mounts[v.Mount].Image.ImageRef = v.ImageRef
	}
	if res := resourcesOf(rec.Spec.Resources); res != nil {
		status.Resources = &runtimeapi.ContainerResources{Linux: res}
	}
	return status
}

func containerUserOf(rec container.Record) *runtimeapi.ContainerUser {
	user := &runtimeapi.LinuxContainerUser{Uid: int64(rec.User.UID), Gid: int64(rec.User.GID)}
	for _, gid := range rec.User.AdditionalGids {
		user.SupplementalGroups = append(user.SupplementalGroups, int64(gid))
	}
	return &runtimeapi.ContainerUser{Linux: user}
}

func mountOf(m ocispec.Mount) *runtimeapi.Mount {
	propagations := map[ocispec.Propagation]runtimeapi.MountPropagation{
		ocispec.PropagationHostToContainer: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
		ocispec.PropagationBidirectional:   runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL,
	}
	out := &runtimeapi.Mount{
		ContainerPath:     m.ContainerPath,
		HostPath:          m.HostPath,
		Readonly:          m.Readonly,
		RecursiveReadOnly: m.RecursiveReadOnly,
		Propagation:       propagations[m.Propagation],
		SelinuxRelabel:    m.SELinuxRelabel,
		MountOptions:      m.Options,
	}
	if image := m.Image; image != nil {
		out.ImageSubPath = image.SubPath
		out.Image = &runtimeapi.ImageSpec{
			Image:              image.Image,
			UserSpecifiedImage: image.UserImage,
			RuntimeHandler:     image.RuntimeHandler,
			Annotations:        image.Annotations,
		}
	}
	return out
}

// nanos is 0 for the zero time, which CRI takes for "not yet".
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
