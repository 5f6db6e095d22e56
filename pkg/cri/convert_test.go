package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/signal"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
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
		{"name that is two CNI arguments", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "a;K8S_POD_UID=b" }},
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
			if spec, err := sandboxSpec(podConfig(tc.change), "", ocispec.CgroupDriverCgroupfs); status.Code(err) != codes.InvalidArgument {
				t.Errorf("got %+v, %v, want InvalidArgument", spec, err)
			}
		})
	}
	if _, err := sandboxSpec(nil, "", ocispec.CgroupDriverCgroupfs); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no configuration: got %v, want InvalidArgument", err)
	}
}

// TestSandboxSpecRefusesDNS holds that no word of resolv.conf can become two, or a line of its own.
func TestSandboxSpecRefusesDNS(t *testing.T) {
	for _, bad := range []string{"", "a\nnameserver 192.0.2.1", "a\r", "a b", "a\tb", "a\x00"} {
		for field, dns := range map[string]*runtimeapi.DNSConfig{
			"servers":  {Servers: []string{"192.0.2.53", bad}},
			"searches": {Searches: []string{"svc.cluster.local", bad}},
			"options":  {Options: []string{"ndots:5", bad}},
		} {
			cfg := podConfig(func(c *runtimeapi.PodSandboxConfig) { c.DnsConfig = dns })
			_, err := sandboxSpec(cfg, "", ocispec.CgroupDriverCgroupfs)
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), field) {
				t.Errorf("%s with %q: %v, want InvalidArgument", field, bad, err)
			}
		}
	}
	good := &runtimeapi.DNSConfig{
		Servers:  []string{"192.0.2.53", "2001:db8::1%eth0"},
		Searches: []string{"svc.cluster.local", "."},
		Options:  []string{"ndots:5", "edns0"},
	}
	spec, err := sandboxSpec(podConfig(func(c *runtimeapi.PodSandboxConfig) { c.DnsConfig = good }), "", ocispec.CgroupDriverCgroupfs)
	if err != nil || !slices.Equal(spec.DNS.Servers, good.Servers) || !slices.Equal(spec.DNS.Searches, good.Searches) || !slices.Equal(spec.DNS.Options, good.Options) {
		t.Errorf("got %+v, %v, want %v", spec.DNS, err, good)
	}
}

// TestSandboxSpecChecksTheCgroupParent holds that a pod is refused whose containers could not be made.
func TestSandboxSpecChecksTheCgroupParent(t *testing.T) {
	const cgroupfs, systemd = ocispec.CgroupDriverCgroupfs, ocispec.CgroupDriverSystemd
	for _, tc := range []struct {
		driver ocispec.CgroupDriver
		parent string
		want   codes.Code
	}{
		{cgroupfs, "", codes.OK},
		{cgroupfs, "/kubepods/burstable/pod1", codes.OK},
		{cgroupfs, "/kubepods/../../etc", codes.InvalidArgument},
		{cgroupfs, "/kubepods:1", codes.InvalidArgument},
		{cgroupfs, "/kubepods\x00", codes.InvalidArgument},
		{systemd, "", codes.OK},
		{systemd, "/kubepods.slice/kubepods-pod1.slice", codes.OK},
		{systemd, "/kubepods/burstable/pod1", codes.InvalidArgument},
	} {
		cfg := podConfig(func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = tc.parent })
		if _, err := sandboxSpec(cfg, "", tc.driver); status.Code(grpcError(err)) != tc.want {
			t.Errorf("%s: %q: %v, want %s", tc.driver, tc.parent, err, tc.want)
		}
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
			spec, err := sandboxSpec(podConfig(tc.change), "", ocispec.CgroupDriverCgroupfs)
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
		{"log path with NUL", func(c *runtimeapi.ContainerConfig) { c.LogPath = "a\x00b" }},
		{"log path of the directory", func(c *runtimeapi.ContainerConfig) { c.LogPath = "a/.." }},
		{"log path of a directory", func(c *runtimeapi.ContainerConfig) { c.LogPath = "a/" }},
		{"a stop signal that does not exist", func(c *runtimeapi.ContainerConfig) { c.StopSignal = 9999 }},
		{"device without a path", func(c *runtimeapi.ContainerConfig) { c.Devices = []*runtimeapi.Device{{}} }},
		{"device at a relative path", func(c *runtimeapi.ContainerConfig) {
			c.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "null"}}
		}},
		{"mount at a relative path", mount(&runtimeapi.Mount{HostPath: "/tmp", ContainerPath: "tmp"})},
		{"mount of a relative path", mount(&runtimeapi.Mount{HostPath: "tmp", ContainerPath: "/tmp"})},
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
		{"TARGET with an endless target", security(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: strings.Repeat("a", maxName+1)}
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
		if _, err := signal.ParseSignal(stopSignal(runtimeapi.Signal(value))); err != nil {
			t.Errorf("%s cannot be sent: %v", name, err)
		}
	}
}

func TestGRPCError(t *testing.T) {
	for _, s := range sentinels {
		if got := status.Code(grpcError(s.err)); got != s.code {
			t.Errorf("%v: got %s, want %s", s.err, got, s.code)
		}
	}
	full := &fs.PathError{Op: "write", Path: "state.db", Err: syscall.ENOSPC}
	for _, tc := range []struct {
		err  error
		want codes.Code
	}{
		{fmt.Errorf("commit to state.db: %w", full), codes.ResourceExhausted},
		{fmt.Errorf("CNI ADD for sandbox 1: %w: %w", network.ErrPlugin, errors.New("no free address")), codes.Unavailable},
		{fmt.Errorf("CNI ADD for sandbox 1: %w: %w", network.ErrPlugin, context.DeadlineExceeded), codes.DeadlineExceeded},
		{fmt.Errorf("CNI ADD for sandbox 1: %w: %w", network.ErrPlugin, full), codes.ResourceExhausted},
		{errors.New("no idea"), codes.Unknown},
	} {
		if got := status.Code(grpcError(tc.err)); got != tc.want {
			t.Errorf("%v: got %s, want %s", tc.err, got, tc.want)
		}
	}
	if got := status.Code(grpcError(sandbox.ErrNotFound)); got != codes.NotFound {
		t.Errorf("got %s, want NotFound", got)
	}
}

// TestSeconds: kubelet's time spans are 64 bits wide, and a huge one must not become a negative one.
func TestSeconds(t *testing.T) {
	for in, want := range map[int64]time.Duration{0: 0, 30: 30 * time.Second, -1: 0, math.MinInt64: 0, math.MaxInt64: 9223372036 * time.Second} {
		if got := seconds(in); got != want {
			t.Errorf("seconds(%d) = %s, want %s", in, got, want)
		}
	}
}

func TestCheckCommand(t *testing.T) {
	for _, cmd := range [][]string{nil, {"a\x00b"}, {"a", "b\x00"}} {
		if err := checkCommand(cmd); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: %v, want InvalidArgument", cmd, err)
		}
	}
	if err := checkCommand([]string{"a", "", "b\nc"}); err != nil {
		t.Error(err)
	}
}
