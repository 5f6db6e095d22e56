package nodetest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Container is a container of a Pod.
type Container struct {
	ID     string
	Config *runtimeapi.ContainerConfig

	pod *Pod
}

// ContainerOption changes a container's configuration before it is sent.
type ContainerOption func(*runtimeapi.ContainerConfig)

// Command sets the command with its arguments; the image's entrypoint is not used then.
func Command(argv ...string) ContainerOption {
	return func(c *runtimeapi.ContainerConfig) { c.Command, c.Args = argv[:1], argv[1:] }
}

// Shell runs a script with sh.
func Shell(script string) ContainerOption { return Command("sh", "-c", script) }

// User runs the container as a numeric user and group.
func User(uid, gid int64) ContainerOption {
	return func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: uid}
		c.Linux.SecurityContext.RunAsGroup = &runtimeapi.Int64Value{Value: gid}
	}
}

// Capabilities adds capabilities, named without "CAP_".
func Capabilities(names ...string) ContainerOption {
	return func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: names}
	}
}

// Unconfined switches the seccomp filter and AppArmor's profile off, so that the kernel's own answer is seen.
func Unconfined(c *runtimeapi.ContainerConfig) {
	c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	c.Linux.SecurityContext.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
}

// Mount mounts a host path.
func Mount(hostPath, containerPath string) ContainerOption {
	return func(c *runtimeapi.ContainerConfig) {
		c.Mounts = append(c.Mounts, &runtimeapi.Mount{HostPath: hostPath, ContainerPath: containerPath})
	}
}

// ReadOnlyMount mounts a host path read-only.
func ReadOnlyMount(hostPath, containerPath string) ContainerOption {
	return func(c *runtimeapi.ContainerConfig) {
		c.Mounts = append(c.Mounts, &runtimeapi.Mount{HostPath: hostPath, ContainerPath: containerPath, Readonly: true})
	}
}

var containerCount atomic.Int64

// ContainerConfig is what Create sends: the namespaces are the pod's, the command is the image's.
func (p *Pod) ContainerConfig(image string, opts ...ContainerOption) *runtimeapi.ContainerConfig {
	name := fmt.Sprintf("c%d", containerCount.Add(1))
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: image},
		LogPath:  name + ".log",
		Labels:   map[string]string{"io.kubernetes.container.name": name},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: namespaces(p.Request),
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
	for _, opt := range opts {
		opt(config)
	}
	return config
}

// TryCreate creates a container; the pod's removal removes it.
func (p *Pod) TryCreate(ctx context.Context, config *runtimeapi.ContainerConfig) (*Container, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := p.node.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.ID, Config: config, SandboxConfig: p.Request.Config,
	})
	if err != nil {
		return nil, err
	}
	return &Container{ID: resp.ContainerId, Config: config, pod: p}, nil
}

// Create creates a container.
func (p *Pod) Create(t testing.TB, image string, opts ...ContainerOption) *Container {
	t.Helper()
	c, err := p.TryCreate(t.Context(), p.ContainerConfig(image, opts...))
	if err != nil {
		t.Fatalf("CreateContainer: %v", err)
	}
	return c
}

// Run creates and starts a container.
func (p *Pod) Run(t testing.TB, image string, opts ...ContainerOption) *Container {
	t.Helper()
	c := p.Create(t, image, opts...)
	c.Start(t)
	return c
}

// Output runs a container to its end, wants exit code 0 and returns what it wrote to stdout, trimmed.
func (p *Pod) Output(t testing.TB, image string, opts ...ContainerOption) string {
	t.Helper()
	c := p.Run(t, image, opts...)
	if code := c.Wait(t); code != 0 {
		t.Fatalf("%q exits with %d; its log:\n%s", c.Config.Command, code, c.Log(t))
	}
	return strings.TrimSpace(c.Log(t).Stdout())
}

// TryStart starts the container.
func (c *Container) TryStart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.pod.node.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.ID})
	return err
}

// Start starts the container.
func (c *Container) Start(t testing.TB) {
	t.Helper()
	if err := c.TryStart(t.Context()); err != nil {
		t.Fatalf("StartContainer: %v", err)
	}
}

// Stop asks the container to end and kills it after the timeout.
func (c *Container) Stop(t testing.TB, timeout time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	request := &runtimeapi.StopContainerRequest{ContainerId: c.ID, Timeout: int64(timeout / time.Second)}
	if _, err := c.pod.node.Runtime.StopContainer(ctx, request); err != nil {
		t.Fatalf("StopContainer: %v", err)
	}
}

// Remove removes the container.
func (c *Container) Remove(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	if _, err := c.pod.node.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID}); err != nil {
		t.Fatalf("RemoveContainer: %v", err)
	}
}

// Status is the container's status.
func (c *Container) Status(t testing.TB) *runtimeapi.ContainerStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	resp, err := c.pod.node.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.ID})
	if err != nil {
		t.Fatalf("ContainerStatus: %v", err)
	}
	return resp.Status
}

// Wait waits until the container has exited and returns its exit code.
func (c *Container) Wait(t testing.TB) int32 {
	t.Helper()
	deadline := time.Now().Add(callTimeout)
	for time.Now().Before(deadline) {
		if status := c.Status(t); status.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			return status.ExitCode
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("container %s still runs after %s", c.Config.Metadata.Name, callTimeout)
	return 0
}

// TryExec runs a command inside.
func (c *Container) TryExec(ctx context.Context, argv ...string) (*runtimeapi.ExecSyncResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.pod.node.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Cmd: argv, Timeout: 30})
}

// Exec runs a command inside, wants exit code 0 and returns its stdout, trimmed.
func (c *Container) Exec(t testing.TB, argv ...string) string {
	t.Helper()
	resp, err := c.TryExec(t.Context(), argv...)
	if err != nil {
		t.Fatalf("ExecSync of %q: %v", argv, err)
	}
	if resp.ExitCode != 0 {
		t.Fatalf("%q exits with %d: %s%s", argv, resp.ExitCode, resp.Stdout, resp.Stderr)
	}
	return strings.TrimSpace(string(resp.Stdout))
}

// PID is the host's id of the container's first process, as containerd knows it.
func (c *Container) PID(t testing.TB) int {
	t.Helper()
	resp, err := tasksapi.NewTasksClient(c.pod.node.Engine).Get(InContainerd(t.Context()), &tasksapi.GetRequest{ContainerID: c.ID})
	if err != nil {
		t.Fatalf("ask containerd for the task of %s: %v", c.ID, err)
	}
	return int(resp.Process.Pid)
}

// HostPath is the path at which the host sees a file of the running container.
func (c *Container) HostPath(t testing.TB, path string) string {
	t.Helper()
	return fmt.Sprintf("/proc/%d/root/%s", c.PID(t), strings.TrimPrefix(path, "/"))
}
