package e2e

import (
	"math"
	"strings"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// badContainers are requests for containers in a good pod. Those that are OK go with the pod.
func (b *badInput) badContainers(huge, odd string) []badCase {
	with := func(name string, code codes.Code, says string, change func(*runtimeapi.ContainerConfig)) badCase {
		cfg := b.pods[0].ContainerConfig(b.image)
		change(cfg)
		return badCase{name, &runtimeapi.CreateContainerRequest{PodSandboxId: b.pods[0].ID, Config: cfg, SandboxConfig: b.pods[0].Request.Config}, code, says}
	}
	bad := func(name, says string, change func(*runtimeapi.ContainerConfig)) badCase {
		return with(name, codes.InvalidArgument, says, change)
	}
	mount := func(m *runtimeapi.Mount) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) { c.Mounts = []*runtimeapi.Mount{m} }
	}
	logPath := func(path string) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) { c.LogPath = path }
	}
	return []badCase{
		{"no configuration", &runtimeapi.CreateContainerRequest{PodSandboxId: b.pods[0].ID}, codes.InvalidArgument, "metadata.name"},
		bad("no metadata", "metadata.name", func(c *runtimeapi.ContainerConfig) { c.Metadata = nil }),
		bad("name that climbs", "metadata.name", func(c *runtimeapi.ContainerConfig) { c.Metadata.Name = "../x" }),
		bad("no image", "image", func(c *runtimeapi.ContainerConfig) { c.Image = nil }),
		with("image that does not exist", codes.NotFound, "a\\x00", func(c *runtimeapi.ContainerConfig) { c.Image.Image = odd }),
		bad("image that is a device", "/dev/zero", func(c *runtimeapi.ContainerConfig) { c.Image.Image = "/dev/zero" }),
		bad("image that is a file and no checkpoint", "/etc/passwd", func(c *runtimeapi.ContainerConfig) { c.Image.Image = "/etc/passwd" }),
		bad("absolute log path", "log_path", logPath("/etc/passwd")),
		bad("log path that climbs", "log_path", logPath("../x.log")),
		bad("log path that climbs on its way", "log_path", logPath("a/../../x.log")),
		bad("log path with NUL", "log_path", logPath("a\x00.log")),
		bad("log path with a newline", "log_path", logPath("a\n.log")),
		bad("log path of a directory", "log_path", logPath("a/")),
		bad("mount of a relative path", "host_path", mount(&runtimeapi.Mount{HostPath: "etc", ContainerPath: "/vol"})),
		bad("mount of a path with NUL", "host_path", mount(&runtimeapi.Mount{HostPath: "/etc\x00x", ContainerPath: "/vol"})),
		bad("mount of nothing", "host_path", mount(&runtimeapi.Mount{ContainerPath: "/vol"})),
		bad("mount at a relative path", "container_path", mount(&runtimeapi.Mount{HostPath: "/etc", ContainerPath: "vol"})),
		bad("mount at a path with NUL", "container_path", mount(&runtimeapi.Mount{HostPath: "/etc", ContainerPath: "/vol\x00"})),
		bad("mount at the root", "over the container's root", mount(&runtimeapi.Mount{HostPath: "/etc", ContainerPath: "/"})),
		bad("mount of a huge path", "source", mount(&runtimeapi.Mount{HostPath: "/" + huge, ContainerPath: "/vol"})),
		bad("image volume with a sub-path that climbs", "image_sub_path", mount(&runtimeapi.Mount{
			Image: &runtimeapi.ImageSpec{Image: b.image}, ImageSubPath: "../x", ContainerPath: "/vol",
		})),
		bad("device that does not exist", "/dev/none", func(c *runtimeapi.ContainerConfig) {
			c.Devices = []*runtimeapi.Device{{HostPath: "/dev/none", ContainerPath: "/dev/none", Permissions: "rw"}}
		}),
		bad("device without a path", "device", func(c *runtimeapi.ContainerConfig) { c.Devices = []*runtimeapi.Device{{}} }),
		bad("variable without a name", "environment", func(c *runtimeapi.ContainerConfig) { c.Envs = []*runtimeapi.KeyValue{{Value: []byte("x")}} }),
		bad("variable with NUL", "environment", func(c *runtimeapi.ContainerConfig) {
			c.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("x\x00")}}
		}),
		bad("argument with NUL", "argument", func(c *runtimeapi.ContainerConfig) { c.Args = []string{"x\x00"} }),
		bad("relative working directory", "working directory", func(c *runtimeapi.ContainerConfig) { c.WorkingDir = "tmp" }),
		bad("capability that cannot be one", "NO SUCH", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NO SUCH"}}
		}),
		bad("relative masked path", "masked path", func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.MaskedPaths = []string{"proc"} }),
		bad("relative seccomp profile", "seccomp", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "../x"}
		}),
		bad("seccomp profile without end", "/dev/zero", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/dev/zero"}
		}),
		bad("seccomp profile of a type that does not exist", "seccomp", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: 77}
		}),
		bad("AppArmor profile of a type that does not exist", "apparmor", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Apparmor = &runtimeapi.SecurityProfile{ProfileType: 77}
		}),
		bad("seccomp profile that is misspelled", "runtime-default", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp = nil
			c.Linux.SecurityContext.SeccompProfilePath = "runtime-default" //nolint:staticcheck // clients still send the deprecated field
		}),
		bad("user below 0", "-5", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: -5}
		}),
		bad("target that does not exist", "namespace_options.target_id", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET}
		}),
		bad("processor shares below 0", "shares", func(c *runtimeapi.ContainerConfig) { c.Linux.Resources.CpuShares = -1 }),
		bad("oom_score_adj out of range", "oom_score_adj", func(c *runtimeapi.ContainerConfig) { c.Linux.Resources.OomScoreAdj = 1001 }),
		bad("stop signal that does not exist", "stop_signal", func(c *runtimeapi.ContainerConfig) { c.StopSignal = 9999 }),
		bad("huge label", "label", func(c *runtimeapi.ContainerConfig) { c.Labels["huge"] = huge }),
		with("huge annotation", codes.OK, "", func(c *runtimeapi.ContainerConfig) {
			c.Annotations = map[string]string{"huge": strings.Repeat("x", 256<<10)}
		}),
		with("no Linux configuration", codes.OK, "", func(c *runtimeapi.ContainerConfig) { c.Linux = nil }),
	}
}

func (b *badInput) badUpdates() []badCase {
	with := func(name string, code codes.Code, says string, r *runtimeapi.LinuxContainerResources) badCase {
		return badCase{name, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: b.running.ID, Linux: r}, code, says}
	}
	return []badCase{
		with("nothing to update", codes.OK, "", nil),
		with("period below 0", codes.InvalidArgument, "cpu period", &runtimeapi.LinuxContainerResources{CpuPeriod: -1}),
		with("memory below 0", codes.InvalidArgument, "memory limit", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: math.MinInt64}),
		with("processors with a path", codes.InvalidArgument, "cpuset", &runtimeapi.LinuxContainerResources{CpusetCpus: "0/../1"}),
		with("processors that do not exist", codes.FailedPrecondition, "cpuset", &runtimeapi.LinuxContainerResources{CpusetCpus: "4095"}),
		with("quota that the kernel refuses", codes.FailedPrecondition, "cpu", &runtimeapi.LinuxContainerResources{CpuQuota: 1}),
		with("memory below what is used", codes.FailedPrecondition, "memory", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 4096}),
		with("page size with a path", codes.InvalidArgument, "huge page", &runtimeapi.LinuxContainerResources{
			HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "../2MB", Limit: 1}},
		}),
	}
}

func (b *badInput) badCommands() []badCase {
	with := func(name string, code codes.Code, says string, timeout int64, cmd ...string) badCase {
		return badCase{name, &runtimeapi.ExecSyncRequest{ContainerId: b.running.ID, Cmd: cmd, Timeout: timeout}, code, says}
	}
	return []badCase{
		with("no command", codes.InvalidArgument, "cmd", 0),
		with("command with NUL", codes.InvalidArgument, "cmd[1]", 0, "echo", "a\x00b"),
		with("timeout below 0", codes.OK, "", -1, "true"),
		with("timeout beyond 292 years", codes.OK, "", math.MaxInt64, "true"),
	}
}
