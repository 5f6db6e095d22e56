package cri

import (
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// containerSpec validates a container's configuration and converts it.
func containerSpec(cfg *runtimeapi.ContainerConfig) (container.Spec, error) {
	var none container.Spec
	if err := checkName("container metadata.name", cfg.GetMetadata().GetName()); err != nil {
		return none, err
	}
	if cfg.GetImage().GetImage() == "" {
		return none, invalid("container %s names no image", cfg.GetMetadata().GetName())
	}
	if err := checkLogPath(cfg.GetLogPath()); err != nil {
		return none, err
	}
	if _, ok := runtimeapi.Signal_name[int32(cfg.GetStopSignal())]; !ok {
		return none, invalid("stop_signal is %d: no such signal", cfg.GetStopSignal())
	}
	sc := cfg.GetLinux().GetSecurityContext()
	namespaces, err := containerNamespaces(sc.GetNamespaceOptions())
	if err != nil {
		return none, err
	}
	mounts, err := containerMounts(cfg.GetMounts())
	if err != nil {
		return none, err
	}
	nodes, err := devices(cfg.GetDevices())
	if err != nil {
		return none, err
	}
	security, err := containerSecurity(sc)
	if err != nil {
		return none, err
	}
	return container.Spec{
		Metadata:    container.Metadata{Name: cfg.GetMetadata().GetName(), Attempt: cfg.GetMetadata().GetAttempt()},
		Image:       cfg.GetImage().GetImage(),
		UserImage:   cfg.GetImage().GetUserSpecifiedImage(),
		Command:     cfg.GetCommand(),
		Args:        cfg.GetArgs(),
		WorkingDir:  cfg.GetWorkingDir(),
		Env:         environment(cfg.GetEnvs()),
		Mounts:      mounts,
		Devices:     nodes,
		CDIDevices:  cdiDevices(cfg.GetCDIDevices()),
		Labels:      cfg.GetLabels(),
		Annotations: cfg.GetAnnotations(),
		LogPath:     cfg.GetLogPath(),
		Stdin:       cfg.GetStdin(),
		StdinOnce:   cfg.GetStdinOnce(),
		TTY:         cfg.GetTty(),
		StopSignal:  stopSignal(cfg.GetStopSignal()),
		Namespaces:  namespaces,
		Security:    security,
		Resources:   resources(cfg.GetLinux().GetResources()),
	}, nil
}

// checkLogPath accepts the path of a file that stays below the sandbox's log directory, or none.
func checkLogPath(path string) error {
	if path == "" {
		return nil
	}
	if filepath.IsLocal(path) && filepath.Clean(path) != "." && !strings.HasSuffix(path, "/") && !strings.ContainsAny(path, "\x00\n") {
		return nil
	}
	return invalid("log_path is %q: want the path of a file below the sandbox's log directory", path)
}

func containerNamespaces(opts *runtimeapi.NamespaceOption) (container.Namespaces, error) {
	var none container.Namespaces
	modes := map[runtimeapi.NamespaceMode]container.PIDMode{
		runtimeapi.NamespaceMode_POD:       container.PIDPod,
		runtimeapi.NamespaceMode_CONTAINER: container.PIDContainer,
		runtimeapi.NamespaceMode_NODE:      container.PIDNode,
		runtimeapi.NamespaceMode_TARGET:    container.PIDTarget,
	}
	mode, ok := modes[opts.GetPid()]
	if !ok {
		return none, invalid("namespace_options.pid is %s", opts.GetPid())
	}
	if mode == container.PIDTarget {
		if err := checkID("namespace_options.target_id", opts.GetTargetId()); err != nil {
			return none, err
		}
	}
	user, err := userNamespace(opts.GetUsernsOptions())
	if err != nil || user == nil {
		return container.Namespaces{PID: mode, TargetID: opts.GetTargetId()}, err
	}
	return container.Namespaces{PID: mode, TargetID: opts.GetTargetId(), Requested: user.Requested}, nil
}

func containerMounts(in []*runtimeapi.Mount) ([]ocispec.Mount, error) {
	propagations := map[runtimeapi.MountPropagation]ocispec.Propagation{
		runtimeapi.MountPropagation_PROPAGATION_PRIVATE:           ocispec.PropagationPrivate,
		runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER: ocispec.PropagationHostToContainer,
		runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:     ocispec.PropagationBidirectional,
	}
	var out []ocispec.Mount
	for _, m := range in {
		if !absolute(m.GetContainerPath()) {
			return nil, invalid("mount of %q has the container_path %q: want an absolute path", m.GetHostPath(), m.GetContainerPath())
		}
		propagation, ok := propagations[m.GetPropagation()]
		if !ok {
			return nil, invalid("mount at %q has the propagation %s", m.GetContainerPath(), m.GetPropagation())
		}
		if err := checkMountSource(m); err != nil {
			return nil, err
		}
		if m.GetRecursiveReadOnly() && (!m.GetReadonly() || propagation != ocispec.PropagationPrivate) {
			return nil, invalid("mount at %q is recursive_read_only: it has to be readonly and private too", m.GetContainerPath())
		}
		out = append(out, ocispec.Mount{
			HostPath:          m.GetHostPath(),
			ContainerPath:     m.GetContainerPath(),
			Readonly:          m.GetReadonly() || m.GetImage() != nil,
			RecursiveReadOnly: m.GetRecursiveReadOnly(),
			Propagation:       propagation,
			SELinuxRelabel:    m.GetSelinuxRelabel(),
			Options:           m.GetMountOptions(),
			Image:             mountedImage(m),
		})
	}
	return out, nil
}

// checkMountSource holds that a mount has one source: a path of the host, or an image.
func checkMountSource(m *runtimeapi.Mount) error {
	at, image := m.GetContainerPath(), m.GetImage()
	switch {
	case image == nil && m.GetImageSubPath() != "":
		return invalid("mount at %q has the image_sub_path %q and no image", at, m.GetImageSubPath())
	case image == nil && !absolute(m.GetHostPath()):
		return invalid("mount at %q has the host_path %q: want an absolute path", at, m.GetHostPath())
	case image == nil:
		return nil
	case m.GetHostPath() != "":
		return invalid("mount at %q has both the image %q and the host path %q", at, image.GetImage(), m.GetHostPath())
	case image.GetImage() == "":
		return invalid("mount at %q has an image without a name", at)
	case m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		return invalid("mount of an image at %q has the propagation %s", at, m.GetPropagation())
	case m.GetImageSubPath() != "" && (!filepath.IsLocal(m.GetImageSubPath()) || strings.ContainsRune(m.GetImageSubPath(), 0)):
		return invalid("mount at %q has the image_sub_path %q: want a path below the image's root", at, m.GetImageSubPath())
	}
	return nil
}

// absolute says whether the kernel takes path for one that begins at the root.
func absolute(path string) bool { return filepath.IsAbs(path) && !strings.ContainsRune(path, 0) }

func mountedImage(m *runtimeapi.Mount) *ocispec.MountedImage {
	image := m.GetImage()
	if image == nil {
		return nil
	}
	return &ocispec.MountedImage{
		Image:          image.GetImage(),
		UserImage:      image.GetUserSpecifiedImage(),
		RuntimeHandler: image.GetRuntimeHandler(),
		Annotations:    image.GetAnnotations(),
		SubPath:        m.GetImageSubPath(),
	}
}

func environment(in []*runtimeapi.KeyValue) []ocispec.KeyValue {
	var out []ocispec.KeyValue
	for _, kv := range in {
		out = append(out, ocispec.KeyValue{Key: kv.GetKey(), Value: string(kv.GetValue())})
	}
	return out
}

func devices(in []*runtimeapi.Device) ([]ocispec.Device, error) {
	var out []ocispec.Device
	for _, d := range in {
		if !absolute(d.GetHostPath()) || d.GetContainerPath() != "" && !absolute(d.GetContainerPath()) {
			return nil, invalid("device has the host_path %q and the container_path %q: want absolute paths", d.GetHostPath(), d.GetContainerPath())
		}
		out = append(out, ocispec.Device{
			HostPath:      d.GetHostPath(),
			ContainerPath: d.GetContainerPath(),
			Permissions:   d.GetPermissions(),
		})
	}
	return out, nil
}

func cdiDevices(in []*runtimeapi.CDIDevice) []string {
	var out []string
	for _, d := range in {
		out = append(out, d.GetName())
	}
	return out
}

// stopSignal turns SIGNAL_SIGRTMINPLUS3 into SIGRTMIN+3; empty is the runtime's default.
func stopSignal(s runtimeapi.Signal) string {
	if s == runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		return ""
	}
	name := strings.TrimPrefix(s.String(), "SIGNAL_")
	return strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(name)
}

// signalOf is the inverse of stopSignal.
func signalOf(name string) runtimeapi.Signal {
	name = "SIGNAL_" + strings.NewReplacer("+", "PLUS", "-", "MINUS").Replace(name)
	return runtimeapi.Signal(runtimeapi.Signal_value[name])
}
