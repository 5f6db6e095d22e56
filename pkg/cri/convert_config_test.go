package cri

import (
	"reflect"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// TestConfigOfASandboxIsItsRequest converts a specification into a configuration and back.
func TestConfigOfASandboxIsItsRequest(t *testing.T) {
	want := sandbox.Spec{
		Metadata:     sandbox.Metadata{Name: "n", UID: "u", Namespace: "ns", Attempt: 3},
		Hostname:     "host",
		LogDirectory: "/var/log/pods/x",
		DNS:          &network.DNS{Servers: []string{"10.0.0.1"}, Searches: []string{"a"}, Options: []string{"ndots:5"}},
		PortMappings: []network.PortMapping{{Protocol: "udp", ContainerPort: 53, HostPort: 5353, HostIP: "127.0.0.1"}},
		Labels:       map[string]string{"l": "1"},
		Annotations:  map[string]string{"a": "2"},
		CgroupParent: "/kubepods/x",
		Sysctls:      map[string]string{"net.core.somaxconn": "7"},
		Namespaces: sandbox.Namespaces{
			Network: sandbox.ModePod, PID: sandbox.ModeContainer, IPC: sandbox.ModePod,
			User: &sandbox.UserNamespace{Requested: &ocispec.IDMapping{HostID: 131072, Length: 65536}},
		},
		Privileged: true,
		Seccomp:    ocispec.Profile{Type: ocispec.ProfileLocalhost, Ref: "/p"},
		SELinux:    &ocispec.SELinux{Type: "t", Level: "s0"},
		Resources:  &ocispec.Resources{CPUShares: 2, MemoryLimit: 3},
		Overhead:   &ocispec.Resources{CPUQuota: 4},
	}
	rec := sandbox.Record{Spec: want, Range: &idpool.Range{Start: 131072, Length: 65536}}
	got, err := sandboxSpec(sandboxConfigOf(rec), "", ocispec.CgroupDriverCgroupfs)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the request is\n%+v, want\n%+v", got, want)
	}
}

// TestConfigOfAContainerIsItsRequest likewise. A container's network and user namespace are its sandbox's.
func TestConfigOfAContainerIsItsRequest(t *testing.T) {
	id := int64(7)
	want := container.Spec{
		Metadata:    container.Metadata{Name: "c", Attempt: 1},
		Image:       "sha256:0",
		UserImage:   "busybox",
		Command:     []string{"sh"},
		Args:        []string{"-c", "x"},
		WorkingDir:  "/w",
		Env:         []ocispec.KeyValue{{Key: "K", Value: "V"}},
		Devices:     []ocispec.Device{{HostPath: "/dev/a", ContainerPath: "/dev/b", Permissions: "rw"}},
		CDIDevices:  []string{"v/c=d"},
		Labels:      map[string]string{"l": "1"},
		Annotations: map[string]string{"a": "2"},
		LogPath:     "c.log",
		Stdin:       true,
		StdinOnce:   true,
		TTY:         true,
		StopSignal:  "SIGRTMIN+3",
		Namespaces:  container.Namespaces{PID: container.PIDTarget, TargetID: "t"},
		Mounts: []ocispec.Mount{
			{HostPath: "/a", ContainerPath: "/b", Readonly: true, RecursiveReadOnly: true, Options: []string{"noexec"}},
			{HostPath: "/s", ContainerPath: "/s", Propagation: ocispec.PropagationHostToContainer, SELinuxRelabel: true},
			{ContainerPath: "/i", Readonly: true, Image: &ocispec.MountedImage{Image: "i", UserImage: "u", SubPath: "p"}},
		},
		Security: ocispec.Security{
			Privileged:     true,
			Capabilities:   ocispec.Capabilities{Add: []string{"A"}, Drop: []string{"D"}, AddAmbient: []string{"B"}},
			User:           ocispec.User{UID: &id, GID: &id, SupplementalGroups: []int64{8}, GroupsPolicy: ocispec.GroupsStrict},
			ReadonlyRootfs: true,
			NoNewPrivs:     true,
			MaskedPaths:    []string{"/m"},
			ReadonlyPaths:  []string{"/r"},
			Seccomp:        ocispec.Profile{Type: ocispec.ProfileUnconfined},
			AppArmor:       ocispec.Profile{Type: ocispec.ProfileRuntimeDefault},
			SELinux:        &ocispec.SELinux{User: "u", Role: "r"},
		},
		Resources: &ocispec.Resources{CPUPeriod: 1, CpusetCPUs: "0", HugepageLimits: []ocispec.HugepageLimit{{PageSize: "2MB", Limit: 4}}},
	}
	got, err := containerSpec(containerConfigOf(container.Record{Spec: want}))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the request is\n%+v, want\n%+v", got, want)
	}
}
