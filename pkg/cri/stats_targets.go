package cri

import (
	"path"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/stats"
)

// statsPod is a pod with the records that its stats are told of.
type statsPod struct {
	sandbox    sandbox.Record
	containers []container.Record
	target     stats.Pod
}

func targetsOf(pods []statsPod) []stats.Pod {
	out := make([]stats.Pod, len(pods))
	for i, pod := range pods {
		out[i] = pod.target
	}
	return out
}

func (s *runtimeService) readySandboxes(filter *runtimeapi.PodSandboxFilter) []sandbox.Record {
	var out []sandbox.Record
	for _, rec := range s.Sandboxes.List() {
		if rec.Phase == sandbox.PhaseReady && matchesSandbox(rec, filter) {
			out = append(out, rec)
		}
	}
	return out
}

// statsPods says where the stats of pods are, with all their containers.
func (s *runtimeService) statsPods(sandboxes []sandbox.Record) ([]statsPod, error) {
	containers := map[string][]container.Record{}
	for _, rec := range s.Containers.List() {
		containers[rec.SandboxID] = append(containers[rec.SandboxID], rec)
	}
	driver := cgroupDriver(s.Node.SystemdCgroup())
	out := make([]statsPod, len(sandboxes))
	for i, sb := range sandboxes {
		pod := statsPod{sandbox: sb, containers: containers[sb.ID]}
		pod.target = stats.Pod{ID: sb.ID, Cgroup: podCgroup(driver, sb.Spec.CgroupParent), NetNS: sb.Pins.Network}
		for _, rec := range pod.containers {
			target, err := statsContainer(driver, sb.Spec.CgroupParent, rec)
			if err != nil {
				return nil, err
			}
			pod.target.Containers = append(pod.target.Containers, target)
		}
		out[i] = pod
	}
	return out, nil
}

// statsContainers says where the stats of containers are. A container whose sandbox is being
// removed no longer runs.
func (s *runtimeService) statsContainers(recs []container.Record) ([]stats.Container, error) {
	parents := map[string]string{}
	for _, sb := range s.Sandboxes.List() {
		parents[sb.ID] = sb.Spec.CgroupParent
	}
	driver := cgroupDriver(s.Node.SystemdCgroup())
	out := make([]stats.Container, len(recs))
	for i, rec := range recs {
		target, err := statsContainer(driver, parents[rec.SandboxID], rec)
		if err != nil {
			return nil, err
		}
		out[i] = target
	}
	return out, nil
}

func statsContainer(driver ocispec.CgroupDriver, parent string, rec container.Record) (stats.Container, error) {
	out := stats.Container{
		ID:          rec.ID,
		Started:     rec.StartedAt,
		PID:         int(rec.PID),
		Snapshotter: rec.Snapshotter,
		Snapshot:    rec.ID,
	}
	if rec.State != container.StateRunning {
		return out, nil
	}
	cgroupsPath, err := ocispec.CgroupsPath(driver, parent, rec.ID)
	if err != nil {
		return stats.Container{}, err
	}
	out.Cgroup = stats.CgroupPath(cgroupsPath)
	return out, nil
}

// podCgroup is the cgroup that kubelet made for the pod. Tools without kubelet send none: then the
// containers' parent is that of other pods too.
func podCgroup(driver ocispec.CgroupDriver, parent string) string {
	parent = path.Join("/", parent)
	if parent == "/" {
		return ""
	}
	if driver == ocispec.CgroupDriverSystemd {
		return stats.SlicePath(path.Base(parent))
	}
	return parent
}

func cgroupDriver(systemd bool) ocispec.CgroupDriver {
	if systemd {
		return ocispec.CgroupDriverSystemd
	}
	return ocispec.CgroupDriverCgroupfs
}
