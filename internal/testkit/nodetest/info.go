package nodetest

import (
	"context"
	"encoding/json"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// Info is what tools read of a verbose status, with the keys of containerd's CRI plugin.
type Info struct {
	PID            *int
	SandboxID      string
	Snapshotter    string
	SnapshotKey    string
	RuntimeHandler string
	RuntimeType    string
	RuntimeSpec    *specs.Spec
	Config         struct {
		Metadata struct{ Name string }
	}
	Range, RequestedRange labnode.Extent // zero where there is none
	Remapped              string
	Overhead              struct{ Linux map[string]json.Number }
	Resources             struct{ Linux map[string]json.Number }
}

// PodInfo is what `crictl inspectp` prints of a pod.
func (n *Node) PodInfo(t testing.TB, id string) Info {
	t.Helper()
	info, err := n.TryPodInfo(t, id)
	if err != nil {
		t.Fatalf("verbose PodSandboxStatus: %v", err)
	}
	return info
}

// TryPodInfo is PodInfo of a pod that may go at any time; the error is then that of CRI.
func (n *Node) TryPodInfo(t testing.TB, id string) (Info, error) {
	t.Helper()
	resp, err := n.Runtime.PodSandboxStatus(context.WithoutCancel(t.Context()), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return Info{}, err
	}
	return parseInfo(t, resp.Info), nil
}

// ContainerInfo is what `crictl inspect` prints of a container.
func (n *Node) ContainerInfo(t testing.TB, id string) Info {
	t.Helper()
	resp, err := n.Runtime.ContainerStatus(context.WithoutCancel(t.Context()), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		t.Fatalf("verbose ContainerStatus: %v", err)
	}
	return parseInfo(t, resp.Info)
}

func parseInfo(t testing.TB, info map[string]string) Info {
	t.Helper()
	var v Info
	if err := json.Unmarshal([]byte(info["info"]), &v); err != nil || v.PID == nil {
		t.Fatalf("verbose status is %q: %v", info["info"], err)
	}
	return v
}
