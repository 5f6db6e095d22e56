package ocispec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files of testdata")

// hostPod is an ordinary container of a pod in the host's user namespace, on cgroup v1.
func hostPod() Container {
	return Container{
		ID: "c0ffee",
		Identity: Identity{
			SandboxID: "5a4db0", SandboxName: "web", SandboxNamespace: "shop", SandboxUID: "0a1b",
			ContainerName: "nginx", ImageName: "registry.example/nginx:1",
		},
		RootPath: "/run/userns-shim/containers/c0ffee/rootfs",
		Process: Process{
			Image: imagespec.ImageConfig{
				Entrypoint: []string{"/entry"}, Cmd: []string{"serve"},
				Env: []string{"PATH=/usr/bin:/bin", "MODE=image"}, WorkingDir: "/srv",
			},
			Env:      []KeyValue{{"MODE", "pod"}, {"EMPTY", ""}},
			Hostname: "web",
		},
		User: ResolvedUser{UID: 1000, GID: 2000, AdditionalGids: []uint32{2000, 3000}},
		Namespaces: Namespaces{
			Network: Namespace{Path: "/var/run/netns/cni-1"},
			IPC:     Namespace{Path: "/run/userns-shim/5a4db0/ns/ipc"},
			UTS:     Namespace{Path: "/run/userns-shim/5a4db0/ns/uts"},
		},
		Security: Security{
			MaskedPaths:   []string{"/proc/kcore", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/sys"},
		},
		Resources:   &Resources{CPUShares: 512, OOMScoreAdj: 900},
		CgroupsPath: "/kubepods/besteffort/pod0a1b/c0ffee",
		Files: PodFiles{
			Hostname:   "/run/userns-shim/5a4db0/hostname",
			ResolvConf: "/run/userns-shim/5a4db0/resolv.conf",
			Shm:        "/run/userns-shim/5a4db0/shm",
		},
		Mounts: []Mount{
			{HostPath: "/var/lib/kubelet/pods/0a1b/etc-hosts", ContainerPath: "/etc/hosts"},
			{HostPath: "/var/lib/kubelet/pods/0a1b/containers/nginx/log", ContainerPath: "/dev/termination-log"},
		},
		Host: Host{Swap: true, Hugetlb: true, Seccomp: true, RecursiveReadOnly: true},
	}
}

// usernsPod is the same container in a pod with a user namespace of its own.
func usernsPod() Container {
	c := hostPod()
	c.Mapping = &IDMapping{ContainerID: 0, HostID: 2113798144, Length: 65536}
	c.Namespaces.User = "/run/userns-shim/5a4db0/ns/user"
	for i := range c.Mounts {
		c.Mounts[i].IDMapped = true
	}
	return c
}

func null(hostPath, containerPath string) HostDevice {
	mode := os.FileMode(0o666)
	return HostDevice{
		HostPath: hostPath, Access: "rw",
		Node: specs.LinuxDevice{Path: containerPath, Type: "c", Major: 1, Minor: 3, FileMode: &mode},
	}
}

type goldenCase struct {
	name string
	base func() Container
	edit func(*Container)
}

func (c goldenCase) build() (*specs.Spec, error) {
	in := c.base()
	if c.edit != nil {
		c.edit(&in)
	}
	return Build(in)
}

var goldenCases = []goldenCase{
	{"host-userns", hostPod, nil},
	{"userns", usernsPod, nil},
	{"userns-cgroup-v2", usernsPod, func(c *Container) { c.Host.CgroupV2 = true }},
	{"privileged", hostPod, func(c *Container) {
		c.Security.Privileged = true
		c.Security.Seccomp.Type = ProfileRuntimeDefault
		c.SELinux = SELinuxLabels{Process: "process", Mount: "mount"}
		c.Host.Capabilities = []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}
		c.Devices = []HostDevice{null("/dev/null", "/dev/null"), null("/dev/null", "/dev/null")}
	}},
	{"privileged-cgroup-v2", hostPod, func(c *Container) {
		c.Security.Privileged = true
		c.Host.CgroupV2 = true
		c.Host.CgroupOptions = []string{"nsdelegate", "memory_recursiveprot"}
	}},
	{"readonly-rootfs", hostPod, func(c *Container) {
		c.Security.ReadonlyRootfs = true
		c.Security.NoNewPrivs = true
	}},
	{"host-network", hostPod, func(c *Container) {
		c.Namespaces.Network = Namespace{Host: true}
		c.Namespaces.UTS = Namespace{Host: true}
	}},
	{"host-pid-ipc", hostPod, func(c *Container) {
		c.Namespaces.PID = Namespace{Host: true}
		c.Namespaces.IPC = Namespace{Host: true}
		c.Files.Shm = "/dev/shm"
	}},
	{"userns-host-network", usernsPod, func(c *Container) { c.Namespaces.Network = Namespace{Host: true} }},
	{"shared-pid", usernsPod, func(c *Container) { c.Namespaces.PID = Namespace{Path: "/proc/4711/ns/pid"} }},
	{"tty", hostPod, func(c *Container) { c.Process.TTY = true }},
	{"resources-v1", hostPod, func(c *Container) { c.Resources = fullResources() }},
	{"resources-v2", hostPod, func(c *Container) {
		c.Resources = fullResources()
		c.Resources.Unified = map[string]string{"memory.oom.group": "1", "memory.high": "1000"}
		c.Host.CgroupV2 = true
		c.CgroupsPath = "kubepods-pod0a1b.slice:cri-containerd:c0ffee"
	}},
	{"mounts", hostPod, func(c *Container) { c.Mounts = manyMounts() }},
	{"mounts-userns", usernsPod, func(c *Container) {
		c.Mounts = []Mount{
			{HostPath: "/data", ContainerPath: "/data", IDMapped: true},
			{HostPath: "/data", ContainerPath: "/ro", IDMapped: true, Readonly: true},
			{HostPath: "/data", ContainerPath: "/rro", IDMapped: true, Readonly: true, RecursiveReadOnly: true},
			{HostPath: "/data", ContainerPath: "/slave", IDMapped: true, Propagation: PropagationHostToContainer},
		}
	}},
	{"devices", hostPod, func(c *Container) { c.Devices = []HostDevice{null("/dev/null", "/dev/nothing")} }},
	{"devices-userns", usernsPod, func(c *Container) {
		c.Devices = []HostDevice{null("/dev/null", "/dev/nothing"), null("/dev/null", "/dev/null")}
	}},
	{"seccomp-default", hostPod, func(c *Container) { c.Security.Seccomp.Type = ProfileRuntimeDefault }},
	{"seccomp-localhost", hostPod, func(c *Container) {
		c.Security.Seccomp = Profile{Type: ProfileLocalhost, Ref: "/profiles/strict.json"}
		c.Host.ReadProfile = func(string) ([]byte, error) {
			return []byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`), nil
		}
	}},
	{"seccomp-unconfined", hostPod, func(c *Container) {
		c.Security.Seccomp.Type = ProfileUnconfined
		c.Host.SeccompUnset = Profile{Type: ProfileRuntimeDefault}
	}},
	{"apparmor-selinux", hostPod, func(c *Container) {
		c.Host.AppArmorDefault = "userns-shim-default"
		c.SELinux = SELinuxLabels{
			Process: "system_u:system_r:container_t:s0:c1,c2", Mount: "system_u:object_r:container_file_t:s0:c1,c2",
		}
	}},
	{"annotations", hostPod, func(c *Container) {
		c.Annotations = map[string]string{"io.kubernetes.cri.sandbox-id": "another", "example.com/a": "b"}
	}},
}

func fullResources() *Resources {
	return &Resources{
		CPUPeriod: 100000, CPUQuota: 50000, CPUShares: 512, CpusetCPUs: "0-1,3", CpusetMems: "0",
		MemoryLimit: 64 << 20, MemorySwap: 128 << 20, PidsLimit: 100, OOMScoreAdj: -998,
		HugepageLimits: []HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}},
	}
}

func manyMounts() []Mount {
	return []Mount{
		{HostPath: "/deep", ContainerPath: "/a/b/c"},
		{HostPath: "/private", ContainerPath: "/a/b", Readonly: true},
		{HostPath: "/slave", ContainerPath: "/slave", Propagation: PropagationHostToContainer},
		{HostPath: "/shared", ContainerPath: "/shared", Propagation: PropagationBidirectional},
		{HostPath: "/slave2", ContainerPath: "/slave2", Propagation: PropagationHostToContainer},
		{HostPath: "/rro", ContainerPath: "/rro/", Readonly: true, RecursiveReadOnly: true},
		{HostPath: "/opts", ContainerPath: "/opts", Options: []string{"noexec", "rnosuid", "nodev"}},
		{HostPath: "/my-shm", ContainerPath: "/dev/shm/"},
		{HostPath: "/my-hosts", ContainerPath: "/etc/../etc/hosts"},
		{HostPath: "/sys/fs/cgroup", ContainerPath: "/sys/fs/cgroup", Readonly: true},
	}
}

func TestGolden(t *testing.T) {
	for _, tc := range goldenCases {
		t.Run(tc.name, func(t *testing.T) {
			spec, err := tc.build()
			if err != nil {
				t.Fatal(err)
			}
			if tc.name == "seccomp-default" {
				// The rules follow the library, the architecture and the kernel; others test them.
				spec.Linux.Seccomp.Syscalls = nil
				spec.Linux.Seccomp.Architectures = nil
			}
			checkGolden(t, spec)
		})
	}
}

func checkGolden(t *testing.T, spec *specs.Spec) {
	t.Helper()
	var got bytes.Buffer
	enc := json.NewEncoder(&got)
	enc.SetIndent("", "  ")
	if err := enc.Encode(spec); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("testdata", filepath.Base(t.Name())+".json")
	if *update {
		if err := os.WriteFile(name, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s differs, -want +got; go test -update writes it anew:\n%s", name, diff)
	}
}

// Every golden file belongs to a case, or it would rot unseen.
func TestGoldenFilesAreAllUsed(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if cases := len(goldenCases) + len(podInitCases); len(files) != cases {
		t.Errorf("%d golden files for %d cases", len(files), cases)
	}
}
