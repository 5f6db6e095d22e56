package cri

import (
	"encoding/json"
	"fmt"
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

// verbose renders an object for the info map of a verbose answer, under the key that crictl prints.
func verbose(v any) (map[string]string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode verbose information: %w", err)
	}
	return map[string]string{"info": string(data)}, nil
}
