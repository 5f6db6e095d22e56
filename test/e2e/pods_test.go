package e2e

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// bothUsers runs a test in a pod with a user namespace and in one without.
func bothUsers(t *testing.T, test func(t *testing.T, opts ...nodetest.PodOption)) {
	t.Helper()
	t.Run("own user namespace", func(t *testing.T) { test(t) })
	t.Run("host users", func(t *testing.T) { test(t, nodetest.HostUsers) })
}

// shareProcesses asks for one PID namespace for all of the pod, as shareProcessNamespace does.
func shareProcesses(req *runtimeapi.RunPodSandboxRequest) { pidMode(runtimeapi.NamespaceMode_POD)(req) }

func pidMode(mode runtimeapi.NamespaceMode) nodetest.PodOption {
	return func(req *runtimeapi.RunPodSandboxRequest) { podNamespaces(req).Pid = mode }
}

// sleeper is a container that does nothing.
func sleeper(t *testing.T, n *nodetest.Node, opts ...nodetest.PodOption) *nodetest.Container {
	t.Helper()
	return n.RunPod(t, opts...).Run(t, n.Image(t, labimage.Demo), nodetest.Command("sleep", "100000"))
}
