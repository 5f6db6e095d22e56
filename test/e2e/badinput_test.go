package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// wantError holds the code of an error, and that its message names what is wrong.
func wantError(t *testing.T, err error, code codes.Code, parts ...string) {
	t.Helper()
	if got := status.Code(err); got != code {
		t.Errorf("error is %s: %v; want %s", got, err, code)
		return
	}
	for _, part := range parts {
		if !strings.Contains(status.Convert(err).Message(), part) {
			t.Errorf("error %q does not name %q", status.Convert(err).Message(), part)
		}
	}
}

func idMapping(container, host, length uint32) *runtimeapi.IDMapping {
	return &runtimeapi.IDMapping{ContainerId: container, HostId: host, Length: length}
}

func userNS(uids, gids []*runtimeapi.IDMapping) nodetest.PodOption {
	return func(req *runtimeapi.RunPodSandboxRequest) {
		podNamespaces(req).UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: uids, Gids: gids}
	}
}

func podNamespaces(req *runtimeapi.RunPodSandboxRequest) *runtimeapi.NamespaceOption {
	return req.Config.Linux.SecurityContext.NamespaceOptions
}

// TestRefusedPods is every pod that cannot be; the shared node's check holds that nothing is left behind.
func TestRefusedPods(t *testing.T) {
	n := sharedNode(t)
	start := n.Kubelet().Start
	one := []*runtimeapi.IDMapping{idMapping(0, start, 65536)}
	cases := []struct {
		name  string
		code  codes.Code
		names string // in the message
		opt   nodetest.PodOption
	}{
		{"more than one mapping", codes.InvalidArgument, "mapping", userNS(
			[]*runtimeapi.IDMapping{idMapping(0, start, 1000), idMapping(1000, start+1000, 64536)},
			[]*runtimeapi.IDMapping{idMapping(0, start, 1000), idMapping(1000, start+1000, 64536)})},
		{"uids without gids", codes.InvalidArgument, "mapping", userNS(one, nil)},
		{"uid and gid mappings of different length", codes.InvalidArgument, "65535", userNS(one,
			[]*runtimeapi.IDMapping{idMapping(0, start, 65535)})},
		{"uid and gid mappings of different start", codes.InvalidArgument, "want the same", userNS(one,
			[]*runtimeapi.IDMapping{idMapping(0, start+65536, 65536)})},
		{"container id 0 unmapped", codes.InvalidArgument, "container id 0", userNS(
			[]*runtimeapi.IDMapping{idMapping(1, start, 65535)}, []*runtimeapi.IDMapping{idMapping(1, start, 65535)})},
		{"a mapping of no ids", codes.InvalidArgument, "", userNS(
			[]*runtimeapi.IDMapping{idMapping(0, start, 0)}, []*runtimeapi.IDMapping{idMapping(0, start, 0)})},
		{"hostPID with a user namespace", codes.InvalidArgument, "hostPID", func(req *runtimeapi.RunPodSandboxRequest) {
			podNamespaces(req).Pid = runtimeapi.NamespaceMode_NODE
		}},
		{"hostIPC with a user namespace", codes.InvalidArgument, "hostIPC", func(req *runtimeapi.RunPodSandboxRequest) {
			podNamespaces(req).Ipc = runtimeapi.NamespaceMode_NODE
		}},
		{"user namespace mode CONTAINER", codes.InvalidArgument, "CONTAINER", func(req *runtimeapi.RunPodSandboxRequest) {
			podNamespaces(req).UsernsOptions.Mode = runtimeapi.NamespaceMode_CONTAINER
		}},
		{"user namespace mode TARGET", codes.InvalidArgument, "TARGET", func(req *runtimeapi.RunPodSandboxRequest) {
			podNamespaces(req).UsernsOptions.Mode = runtimeapi.NamespaceMode_TARGET
		}},
		{"an unknown runtime handler", codes.InvalidArgument, "no-such-handler", nodetest.Handler("no-such-handler")},
		{"no metadata", codes.InvalidArgument, "metadata", func(req *runtimeapi.RunPodSandboxRequest) { req.Config.Metadata = nil }},
		{"a sysctl that does not exist", codes.InvalidArgument, "kernel.no_such", nodetest.Sysctl("kernel.no_such", "1")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := n.TryRunPod(t, n.PodRequest(t, c.opt))
			wantError(t, err, c.code, c.names)
		})
	}
}

// TestRefusedContainers is every container that cannot be created in a pod that can.
func TestRefusedContainers(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t, nodetest.Mapping(n.Kubelet().Start+7*65536))
	hostPod := n.RunPod(t, nodetest.HostUsers)
	missing := n.Registry.Ref("missing:latest")
	otherMapping := func(c *runtimeapi.ContainerConfig) {
		ids := []*runtimeapi.IDMapping{idMapping(0, n.Kubelet().Start, 65536)}
		c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{
			Pid:           runtimeapi.NamespaceMode_CONTAINER,
			UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids},
		}
	}
	cases := []struct {
		name  string
		pod   *nodetest.Pod
		code  codes.Code
		names string // in the message
		opt   nodetest.ContainerOption
	}{
		{"a mapping that is not its sandbox's", pod, codes.InvalidArgument, pod.ID, otherMapping},
		{"a mapping in a sandbox without", hostPod, codes.InvalidArgument, hostPod.ID, otherMapping},
		{"an image that does not exist", pod, codes.NotFound, missing, func(c *runtimeapi.ContainerConfig) { c.Image.Image = missing }},
		{"a mount source that does not exist", pod, codes.InvalidArgument, "/etc/passwd/none", nodetest.Mount("/etc/passwd/none", "/vol")},
		{"a user that the image lacks", pod, codes.InvalidArgument, "stranger", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUsername = "stranger"
		}},
		{"a user beyond the pod's range", pod, codes.InvalidArgument, "65536", nodetest.User(65536, 0)},
		{"a log path outside the log directory", pod, codes.InvalidArgument, "../out.log", func(c *runtimeapi.ContainerConfig) { c.LogPath = "../out.log" }},
		{"no metadata", pod, codes.InvalidArgument, "metadata", func(c *runtimeapi.ContainerConfig) { c.Metadata = nil }},
		{"Bidirectional propagation in a user namespace", pod, codes.FailedPrecondition, "/vol", func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{HostPath: "/tmp", ContainerPath: "/vol", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL}}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.pod.TryCreate(t.Context(), c.pod.ContainerConfig(image, c.opt))
			wantError(t, err, c.code, c.names)
		})
	}
	t.Run("a sandbox that does not exist", func(t *testing.T) {
		_, err := n.Runtime.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{
			PodSandboxId: strings.Repeat("0", 64), Config: pod.ContainerConfig(image), SandboxConfig: pod.Request.Config,
		})
		wantError(t, err, codes.NotFound, "0000")
	})
	if got := pod.Output(t, image, nodetest.Command("echo", "still good")); got != "still good" {
		t.Errorf("a good container after all that prints %q", got)
	}
}

func TestCommandThatDoesNotExist(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	c := pod.Create(t, image, nodetest.Command("/no/such/command"))
	err := c.TryStart(t.Context())
	allowed := []codes.Code{codes.NotFound, codes.InvalidArgument, codes.FailedPrecondition}
	if got := status.Code(err); !slices.Contains(allowed, got) || !strings.Contains(err.Error(), "/no/such/command") {
		t.Errorf("StartContainer gives %v, want one of %v that names the command", err, allowed)
	}
	st := c.Status(t)
	if st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 128 || st.Reason != "ContainerCannotRun" {
		t.Errorf("the container is %s with exit code %d and reason %q, want exited, 128, ContainerCannotRun", st.State, st.ExitCode, st.Reason)
	}
	running := pod.Run(t, image)
	if resp, err := running.TryExec(t.Context(), "/no/such/command"); err == nil && resp.ExitCode == 0 {
		t.Error("ExecSync of a command that does not exist succeeds")
	}
	running.Exec(t, "true")
}

func TestPullOfAnImageThatDoesNotExist(t *testing.T) {
	n := sharedNode(t)
	ref := n.Registry.Ref("missing:latest")
	_, err := n.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	wantError(t, err, codes.NotFound, ref)
	for _, ref := range []string{"", "UPPER:case:bad"} {
		_, err := n.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
		wantError(t, err, codes.InvalidArgument)
	}
}

// TestContainerdDown wants clear errors while containerd is away, and all to be well when it is back.
func TestContainerdDown(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	c := pod.Run(t, image)
	if err := n.Containerd.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, message := condition(t, n, runtimeapi.RuntimeReady); ok || message == "" {
		t.Errorf("RuntimeReady is %t with the message %q while containerd is down", ok, message)
	}
	_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image))
	wantError(t, err, codes.Unavailable)
	_, err = c.TryExec(t.Context(), "true")
	wantError(t, err, codes.Unavailable)
	_, err = n.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	wantError(t, err, codes.Unavailable)

	if err := n.Containerd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, n)
	c.Exec(t, "true")
	pod.Run(t, image).Exec(t, "true")
}

// TestNoCNIConfiguration wants NetworkReady=false, an error for pods that need the network, and hostNetwork
// pods to run; and all to be well once there is a configuration.
func TestNoCNIConfiguration(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{NoCNI: true})
	if ok, message := condition(t, n, runtimeapi.NetworkReady); ok || message == "" {
		t.Errorf("NetworkReady is %t with the message %q without a CNI configuration", ok, message)
	}
	if ok, message := condition(t, n, runtimeapi.RuntimeReady); !ok {
		t.Errorf("RuntimeReady is false: %s", message)
	}
	_, err := n.TryRunPod(t, n.PodRequest(t))
	if got := status.Code(err); got != codes.Unavailable && got != codes.FailedPrecondition {
		t.Errorf("a pod gives %v, want Unavailable or FailedPrecondition", err)
	}
	image := n.Image(t, labimage.Demo)
	n.RunPod(t, nodetest.HostNetwork).Run(t, image).Exec(t, "true")

	if err := n.WriteCNI(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for ok := false; !ok; {
		var message string
		if ok, message = condition(t, n, runtimeapi.NetworkReady); !ok && time.Now().After(deadline) {
			t.Fatalf("NetworkReady is still false: %s", message)
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.RunPod(t).Run(t, image).Exec(t, "true")
}
