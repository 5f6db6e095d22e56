package cri

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

func podConfig(change func(*runtimeapi.PodSandboxConfig)) *runtimeapi.PodSandboxConfig {
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u", Attempt: 2},
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{UsernsOptions: &runtimeapi.UserNamespace{}},
		}},
	}
	if change != nil {
		change(cfg)
	}
	return cfg
}

func ids(triples ...uint32) []*runtimeapi.IDMapping {
	var out []*runtimeapi.IDMapping
	for ; len(triples) > 0; triples = triples[3:] {
		out = append(out, &runtimeapi.IDMapping{ContainerId: triples[0], HostId: triples[1], Length: triples[2]})
	}
	return out
}

func userns(mode runtimeapi.NamespaceMode, uids, gids []*runtimeapi.IDMapping) func(*runtimeapi.PodSandboxConfig) {
	return func(cfg *runtimeapi.PodSandboxConfig) {
		cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: mode, Uids: uids, Gids: gids}
	}
}

func namespaces(change func(*runtimeapi.NamespaceOption)) func(*runtimeapi.PodSandboxConfig) {
	return func(cfg *runtimeapi.PodSandboxConfig) { change(cfg.Linux.SecurityContext.NamespaceOptions) }
}

func TestSandboxSpecRefuses(t *testing.T) {
	const pod, node = runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_NODE
	one := ids(0, 1<<20, 65536)
	for _, tc := range []struct {
		name   string
		change func(*runtimeapi.PodSandboxConfig)
	}{
		{"no metadata", func(c *runtimeapi.PodSandboxConfig) { c.Metadata = nil }},
		{"empty uid", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Uid = "" }},
		{"name with a slash", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "a/b" }},
		{"name with a newline", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "a\nb" }},
		{"name with NUL", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "a\x00" }},
		{"relative log directory", func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "logs" }},
		{"log directory with ..", func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "/var/log/../../etc" }},
		{"two mappings", userns(pod, ids(0, 1<<20, 65536, 65536, 2<<20, 65536), ids(0, 1<<20, 65536, 65536, 2<<20, 65536))},
		{"uids without gids", userns(pod, one, nil)},
		{"lengths differ", userns(pod, one, ids(0, 1<<20, 131072))},
		{"host ids differ", userns(pod, one, ids(0, 2<<20, 65536))},
		{"container id 0 unmapped", userns(pod, ids(1, 1<<20, 65536), ids(1, 1<<20, 65536))},
		{"empty mapping", userns(pod, ids(0, 1<<20, 0), ids(0, 1<<20, 0))},
		{"mode NODE with a mapping", userns(node, one, one)},
		{"mode CONTAINER", userns(runtimeapi.NamespaceMode_CONTAINER, nil, nil)},
		{"mode TARGET", userns(runtimeapi.NamespaceMode_TARGET, nil, nil)},
		{"unknown mode", userns(99, nil, nil)},
		{"hostPID with a user namespace", namespaces(func(o *runtimeapi.NamespaceOption) { o.Pid = node })},
		{"hostIPC with a user namespace", namespaces(func(o *runtimeapi.NamespaceOption) { o.Ipc = node })},
		{"network mode TARGET", namespaces(func(o *runtimeapi.NamespaceOption) { o.Network = runtimeapi.NamespaceMode_TARGET })},
		{"PID mode TARGET", namespaces(func(o *runtimeapi.NamespaceOption) { o.Pid = runtimeapi.NamespaceMode_TARGET })},
		{"host port out of range", func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 70000, ContainerPort: 80}}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if spec, err := sandboxSpec(podConfig(tc.change), ""); status.Code(err) != codes.InvalidArgument {
				t.Errorf("got %+v, %v, want InvalidArgument", spec, err)
			}
		})
	}
	if _, err := sandboxSpec(nil, ""); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no configuration: got %v, want InvalidArgument", err)
	}
}

func TestSandboxSpecUserNamespace(t *testing.T) {
	for _, tc := range []struct {
		name      string
		change    func(*runtimeapi.PodSandboxConfig)
		user      bool
		requested uint32
	}{
		{"POD without a mapping", nil, true, 0},
		{"POD with a mapping", userns(runtimeapi.NamespaceMode_POD, ids(0, 1<<20, 65536), ids(0, 1<<20, 65536)), true, 1 << 20},
		{"NODE", userns(runtimeapi.NamespaceMode_NODE, nil, nil), false, 0},
		{"unset", namespaces(func(o *runtimeapi.NamespaceOption) { o.UsernsOptions = nil }), false, 0},
		{"no security context", func(c *runtimeapi.PodSandboxConfig) { c.Linux = nil }, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec, err := sandboxSpec(podConfig(tc.change), "")
			if err != nil {
				t.Fatal(err)
			}
			user := spec.Namespaces.User
			if (user != nil) != tc.user {
				t.Fatalf("user namespace of the pod's own: %t, want %t", user != nil, tc.user)
			}
			if user != nil && (user.Requested != nil) != (tc.requested != 0) {
				t.Fatalf("requested mapping: %v", user.Requested)
			}
			if tc.requested != 0 && user.Requested.HostID != tc.requested {
				t.Errorf("requested host id %d, want %d", user.Requested.HostID, tc.requested)
			}
		})
	}
}

func TestContainerSpecRefuses(t *testing.T) {
	mount := func(m *runtimeapi.Mount) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) { c.Mounts = []*runtimeapi.Mount{m} }
	}
	security := func(change func(*runtimeapi.LinuxContainerSecurityContext)) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{}}
			change(c.Linux.SecurityContext)
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*runtimeapi.ContainerConfig)
	}{
		{"no metadata", func(c *runtimeapi.ContainerConfig) { c.Metadata = nil }},
		{"no image", func(c *runtimeapi.ContainerConfig) { c.Image = nil }},
		{"log path outside", func(c *runtimeapi.ContainerConfig) { c.LogPath = "../../etc/cron.d/x" }},
		{"absolute log path", func(c *runtimeapi.ContainerConfig) { c.LogPath = "/etc/passwd" }},
		{"log path with a newline", func(c *runtimeapi.ContainerConfig) { c.LogPath = "a\nb" }},
		{"mount without container path", mount(&runtimeapi.Mount{HostPath: "/tmp"})},
		{"mount without host path", mount(&runtimeapi.Mount{ContainerPath: "/tmp"})},
		{"mount with NUL", mount(&runtimeapi.Mount{ContainerPath: "/tmp", HostPath: "/a\x00b"})},
		{"recursive read-only but writable", mount(&runtimeapi.Mount{ContainerPath: "/t", HostPath: "/t", RecursiveReadOnly: true})},
		{"user id and name", security(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.RunAsUser, s.RunAsUsername = &runtimeapi.Int64Value{Value: 1}, "x"
		})},
		{"group without user", security(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.RunAsGroup = &runtimeapi.Int64Value{Value: 1}
		})},
		{"TARGET without a target", security(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET}
		})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := &runtimeapi.ContainerConfig{
				Metadata: &runtimeapi.ContainerMetadata{Name: "c"},
				Image:    &runtimeapi.ImageSpec{Image: "busybox"},
			}
			tc.change(cfg)
			if spec, err := containerSpec(cfg); status.Code(err) != codes.InvalidArgument {
				t.Errorf("got %+v, %v, want InvalidArgument", spec, err)
			}
		})
	}
}

func TestStopSignalRoundTrip(t *testing.T) {
	for value, name := range runtimeapi.Signal_name {
		if value == 0 {
			continue
		}
		if got := signalOf(stopSignal(runtimeapi.Signal(value))); got != runtimeapi.Signal(value) {
			t.Errorf("%s became %q and then %s", name, stopSignal(runtimeapi.Signal(value)), got)
		}
	}
}

func TestGRPCError(t *testing.T) {
	for _, s := range sentinels {
		if got := status.Code(grpcError(s.err)); got != s.code {
			t.Errorf("%v: got %s, want %s", s.err, got, s.code)
		}
	}
	if got := status.Code(grpcError(sandbox.ErrNotFound)); got != codes.NotFound {
		t.Errorf("got %s, want NotFound", got)
	}
}
