package cri

import (
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// matchesSandbox takes a prefix for an id, as crictl's users do. All conditions have to hold.
func matchesSandbox(rec sandbox.Record, f *runtimeapi.PodSandboxFilter) bool {
	return strings.HasPrefix(rec.ID, f.GetId()) &&
		(f.GetState() == nil || f.GetState().GetState() == sandboxState(rec)) &&
		matchesLabels(rec.Spec.Labels, f.GetLabelSelector())
}

func matchesContainer(rec container.Record, f *runtimeapi.ContainerFilter) bool {
	return strings.HasPrefix(rec.ID, f.GetId()) &&
		strings.HasPrefix(rec.SandboxID, f.GetPodSandboxId()) &&
		(f.GetState() == nil || f.GetState().GetState() == containerState(rec.State)) &&
		matchesLabels(rec.Spec.Labels, f.GetLabelSelector())
}

func matchesLabels(labels, selector map[string]string) bool {
	for key, want := range selector {
		if got, ok := labels[key]; !ok || got != want {
			return false
		}
	}
	return true
}
