package e2e

import (
	"math"
	"strings"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// tables are the cases of each RPC beside those of its id. RPCs whose requests say nothing that could be wrong have
// one that looks so.
func (b *badInput) tables() map[string][]badCase {
	huge, odd := strings.Repeat("x", 1<<20), "a\x00\n../b"
	labels := map[string]string{odd: huge}
	pods := &runtimeapi.PodSandboxFilter{Id: odd, LabelSelector: labels, State: &runtimeapi.PodSandboxStateValue{State: 99}}
	containers := &runtimeapi.ContainerFilter{Id: odd, PodSandboxId: huge, LabelSelector: labels, State: &runtimeapi.ContainerStateValue{State: -1}}
	images := &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: odd}}
	ok, bad := codes.OK, codes.InvalidArgument
	return map[string][]badCase{
		"Version":                  {{"huge version", &runtimeapi.VersionRequest{Version: huge}, ok, ""}},
		"Status":                   {{"verbose", &runtimeapi.StatusRequest{Verbose: true}, ok, ""}},
		"RuntimeConfig":            {{"empty", &runtimeapi.RuntimeConfigRequest{}, ok, ""}},
		"UpdateRuntimeConfig":      {{"no CIDR", &runtimeapi.UpdateRuntimeConfigRequest{RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: odd}}}, ok, ""}},
		"ListPodSandbox":           {{"filter", &runtimeapi.ListPodSandboxRequest{Filter: pods}, ok, ""}},
		"StreamPodSandboxes":       {{"filter", &runtimeapi.StreamPodSandboxesRequest{Filter: pods}, ok, ""}},
		"ListContainers":           {{"filter", &runtimeapi.ListContainersRequest{Filter: containers}, ok, ""}},
		"StreamContainers":         {{"filter", &runtimeapi.StreamContainersRequest{Filter: containers}, ok, ""}},
		"ListContainerStats":       {{"filter", &runtimeapi.ListContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{Id: odd, LabelSelector: labels}}, ok, ""}},
		"StreamContainerStats":     {{"filter", &runtimeapi.StreamContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{Id: odd}}, ok, ""}},
		"ListPodSandboxStats":      {{"filter", &runtimeapi.ListPodSandboxStatsRequest{Filter: &runtimeapi.PodSandboxStatsFilter{Id: odd, LabelSelector: labels}}, ok, ""}},
		"StreamPodSandboxStats":    {{"filter", &runtimeapi.StreamPodSandboxStatsRequest{Filter: &runtimeapi.PodSandboxStatsFilter{Id: odd}}, ok, ""}},
		"ListMetricDescriptors":    {{"empty", &runtimeapi.ListMetricDescriptorsRequest{}, ok, ""}},
		"ListPodSandboxMetrics":    {{"empty", &runtimeapi.ListPodSandboxMetricsRequest{}, ok, ""}},
		"StreamPodSandboxMetrics":  {{"empty", &runtimeapi.StreamPodSandboxMetricsRequest{}, ok, ""}},
		"ListImages":               {{"filter", &runtimeapi.ListImagesRequest{Filter: images}, ok, ""}},
		"StreamImages":             {{"filter", &runtimeapi.StreamImagesRequest{Filter: images}, ok, ""}},
		"ImageFsInfo":              {{"empty", &runtimeapi.ImageFsInfoRequest{}, ok, ""}},
		"ContainerStats":           {{"container that does not run", &runtimeapi.ContainerStatsRequest{ContainerId: b.containers[1].ID}, codes.FailedPrecondition, b.containers[1].ID}},
		"StartContainer":           {{"container that runs", &runtimeapi.StartContainerRequest{ContainerId: b.running.ID}, codes.FailedPrecondition, "running"}},
		"ReopenContainerLog":       {{"container that does not run", &runtimeapi.ReopenContainerLogRequest{ContainerId: b.containers[1].ID}, codes.FailedPrecondition, "created"}},
		"StopContainer":            {{"container that never ran, at the end of time", &runtimeapi.StopContainerRequest{ContainerId: b.containers[1].ID, Timeout: math.MaxInt64}, ok, ""}},
		"CheckpointContainer":      b.badCheckpoints(odd),
		"CheckpointPod":            b.badPodCheckpoints(odd),
		"RestorePod":               b.badRestores(odd),
		"GetContainerEvents":       {}, // its request is empty: only bytes that are none can be wrong
		"RunPodSandbox":            b.badPods(huge, odd),
		"CreateContainer":          b.badContainers(huge, odd),
		"UpdateContainerResources": b.badUpdates(),
		"ExecSync":                 b.badCommands(),
		"Exec": {
			{"no command", &runtimeapi.ExecRequest{ContainerId: b.running.ID, Stdout: true}, bad, "cmd"},
			{"command with NUL", &runtimeapi.ExecRequest{ContainerId: b.running.ID, Cmd: []string{"a\x00"}, Stdout: true}, bad, "cmd[0]"},
			{"no stream", &runtimeapi.ExecRequest{ContainerId: b.running.ID, Cmd: []string{"true"}}, bad, "stdin, stdout, or stderr"},
			{"stderr of a terminal", &runtimeapi.ExecRequest{ContainerId: b.running.ID, Cmd: []string{"true"}, Tty: true, Stdout: true, Stderr: true}, bad, "tty and stderr"},
			{"container that does not run", &runtimeapi.ExecRequest{ContainerId: b.containers[1].ID, Cmd: []string{"true"}, Stdout: true}, codes.FailedPrecondition, "created"},
		},
		"Attach": {
			{"no stream", &runtimeapi.AttachRequest{ContainerId: b.running.ID}, bad, "stdin, stdout, and stderr"},
			{"container that does not run", &runtimeapi.AttachRequest{ContainerId: b.containers[1].ID, Stdout: true}, codes.FailedPrecondition, "created"},
		},
		"PortForward": {
			{"port 0", &runtimeapi.PortForwardRequest{PodSandboxId: b.pods[0].ID, Port: []int32{80, 0}}, bad, "port 0"},
			{"port below 0", &runtimeapi.PortForwardRequest{PodSandboxId: b.pods[0].ID, Port: []int32{-1}}, bad, "port -1"},
			{"port 65536", &runtimeapi.PortForwardRequest{PodSandboxId: b.pods[0].ID, Port: []int32{65536}}, bad, "port 65536"},
		},
		"PullImage": {
			{"no image", &runtimeapi.PullImageRequest{}, bad, "image"},
			{"no name", &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{}}, bad, "image"},
			{"odd name", &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: odd}}, bad, "a\\x00\\n../b"},
			{"huge name", &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: huge}}, bad, "reference"},
		},
		"ImageStatus": {
			{"no name", &runtimeapi.ImageStatusRequest{}, bad, "image"},
			{"odd name", &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: odd}}, ok, ""},
			{"huge name", &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: huge}}, ok, ""},
		},
		"RemoveImage": {
			{"no name", &runtimeapi.RemoveImageRequest{}, bad, "image"},
			{"odd name", &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: odd}}, ok, ""},
		},
	}
}

// badPods are requests for pods. That with huge annotations runs, and is removed as the others of the test.
func (b *badInput) badPods(huge, odd string) []badCase {
	bad := codes.InvalidArgument
	with := func(name, says string, change func(*runtimeapi.PodSandboxConfig)) badCase {
		cfg := &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "bad", Namespace: "e2e", Uid: "bad"},
			Linux:    &runtimeapi.LinuxPodSandboxConfig{},
		}
		change(cfg)
		return badCase{name, &runtimeapi.RunPodSandboxRequest{Config: cfg}, bad, says}
	}
	return []badCase{
		{"no configuration", &runtimeapi.RunPodSandboxRequest{}, bad, "metadata"},
		with("no metadata", "metadata", func(c *runtimeapi.PodSandboxConfig) { c.Metadata = nil }),
		with("no name", "metadata.name", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "" }),
		with("odd name", "metadata.name", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = odd }),
		with("huge namespace", "metadata.namespace", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Namespace = huge }),
		with("uid that climbs", "metadata.uid", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Uid = "../../etc" }),
		with("hostname of 65 bytes", "hostname", func(c *runtimeapi.PodSandboxConfig) { c.Hostname = strings.Repeat("h", 65) }),
		with("odd hostname", "hostname", func(c *runtimeapi.PodSandboxConfig) { c.Hostname = "a\nb" }),
		with("relative log directory", "log_directory", func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "logs" }),
		with("log directory that climbs", "log_directory", func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "/var/log/../../etc" }),
		with("log directory with NUL", "log_directory", func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "/var/log\x00" }),
		with("log directory with a newline", "log_directory", func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "/var/log\n" }),
		with("name server with a newline", "dns_config.servers", func(c *runtimeapi.PodSandboxConfig) {
			c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.0.0.1\nnameserver 10.6.6.6"}}
		}),
		with("cgroup parent that climbs", "cgroup_parent", func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = "/pods/../../x" }),
		with("cgroup parent with NUL", "cgroup_parent", func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = "/pods\x00" }),
		with("host port 70000", "70000", func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 70000, ContainerPort: 80}}
		}),
		with("host port of a protocol that does not exist", "protocol", func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: 99}}
		}),
		with("host port of no address", "host_ip", func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 8080, ContainerPort: 80, HostIp: "nonsense"}}
		}),
		with("name server without a name", "dns_config.servers", func(c *runtimeapi.PodSandboxConfig) {
			c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{""}}
		}),
		with("seccomp profile of a type that does not exist", "seccomp", func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{Seccomp: &runtimeapi.SecurityProfile{ProfileType: 77}}
		}),
		with("ids that are no number", "userns-shim.io/ids", func(c *runtimeapi.PodSandboxConfig) {
			c.Annotations = map[string]string{"userns-shim.io/ids": huge}
		}),
		with("reservation that climbs", "userns-shim.io/reservation", func(c *runtimeapi.PodSandboxConfig) {
			c.Annotations = map[string]string{"userns-shim.io/reservation": odd}
		}),
		with("sysctl that climbs", "kernel/../vm", func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"kernel/../vm/swappiness": "1"}
		}),
		with("sysctl of the node", "vm.swappiness", func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"vm.swappiness": "1"}
		}),
		with("mode of a network namespace that does not exist", "network", func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: 42}}
		}),
	}
}
