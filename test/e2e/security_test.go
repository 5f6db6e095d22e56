package e2e

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// security changes a container's security context.
func security(change func(*runtimeapi.LinuxContainerSecurityContext)) nodetest.ContainerOption {
	return func(c *runtimeapi.ContainerConfig) { change(c.Linux.SecurityContext) }
}

func capabilities(c *runtimeapi.Capability) nodetest.ContainerOption {
	return security(func(s *runtimeapi.LinuxContainerSecurityContext) { s.Capabilities = c })
}

// privilegedPod and privileged say it of both, as kubelet does.
func privilegedPod(req *runtimeapi.RunPodSandboxRequest) {
	req.Config.Linux.SecurityContext.Privileged = true
}

var privileged = security(func(s *runtimeapi.LinuxContainerSecurityContext) {
	s.Privileged = true
	s.Seccomp = nil
})

// statusOf is what /proc says of a process that runs in the container, by field.
func statusOf(t *testing.T, c *nodetest.Container) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, line := range lines(c.Exec(t, "cat", "/proc/self/status")) {
		key, value, _ := strings.Cut(line, ":")
		out[key] = fields(value)
	}
	return out
}

// Bits of capability sets in /proc/<pid>/status, see capability.h.
const (
	capChown    = 1 << 0
	capKill     = 1 << 5
	capNetAdmin = 1 << 12
	capSysAdmin = 1 << 21
)

func capSet(t *testing.T, status map[string]string, name string) uint64 {
	t.Helper()
	set, err := strconv.ParseUint(status[name], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestPrivileged(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := n.RunPod(t, append(opts, privilegedPod)...).Run(t, image, privileged,
			security(func(s *runtimeapi.LinuxContainerSecurityContext) {
				s.MaskedPaths, s.ReadonlyPaths = []string{"/proc/kcore"}, []string{"/proc/sys"}
			}))
		s := statusOf(t, c)
		if got := capSet(t, s, "CapEff"); got&capSysAdmin == 0 || got&capNetAdmin == 0 {
			t.Errorf("effective capabilities %#x, want SYS_ADMIN and NET_ADMIN in them", got)
		}
		if s["Seccomp"] != "0" || s["NoNewPrivs"] != "0" {
			t.Errorf("seccomp %s, no_new_privs %s, want neither", s["Seccomp"], s["NoNewPrivs"])
		}
		if got := c.Exec(t, "stat", "-c", "%F %t:%T", "/dev/kmsg"); got != "character special file 1:b" {
			t.Errorf("/dev/kmsg is %q, want the host's device", got)
		}
		if got := mountFlags(t, c, "/sys"); !slices.Contains(got, "rw") {
			t.Errorf("/sys has the options %q, want rw", got)
		}
		for _, path := range []string{"/proc/sys", "/proc/kcore"} {
			if got := mountFlags(t, c, path); got != nil {
				t.Errorf("%s is a mount with the options %q, want it as it is", path, got)
			}
		}
	})
}

// TestPrivilegedNeedsAPrivilegedSandbox: CRI says that the sandbox has to be told.
func TestPrivilegedNeedsAPrivilegedSandbox(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		wantCreateError(t, n.RunPod(t, opts...), image, codes.InvalidArgument, "privileged", privileged)
	})
}

// mountFlags are those of the mount at path, nil where nothing is mounted.
func mountFlags(t *testing.T, c *nodetest.Container, path string) []string {
	t.Helper()
	for _, line := range lines(c.Exec(t, "cat", "/proc/self/mountinfo")) {
		if f := strings.Fields(line); f[4] == path {
			return strings.Split(f[5], ",")
		}
	}
	return nil
}

func TestCapabilities(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	for name, tt := range map[string]struct {
		caps    *runtimeapi.Capability
		has     uint64
		hasNot  uint64
		exactly bool
	}{
		"default":          {nil, capChown | capKill, capNetAdmin | capSysAdmin, false},
		"add":              {&runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}}, capChown | capNetAdmin, capSysAdmin, false},
		"add with CAP_":    {&runtimeapi.Capability{AddCapabilities: []string{"CAP_NET_ADMIN"}}, capChown | capNetAdmin, capSysAdmin, false},
		"add all":          {&runtimeapi.Capability{AddCapabilities: []string{"ALL"}}, capChown | capNetAdmin | capSysAdmin, 0, false},
		"add all but one":  {&runtimeapi.Capability{AddCapabilities: []string{"ALL"}, DropCapabilities: []string{"SYS_ADMIN"}}, capNetAdmin, capSysAdmin, false},
		"drop":             {&runtimeapi.Capability{DropCapabilities: []string{"CHOWN"}}, capKill, capChown, false},
		"drop all":         {&runtimeapi.Capability{DropCapabilities: []string{"ALL"}}, 0, 0, true},
		"drop all but one": {&runtimeapi.Capability{AddCapabilities: []string{"KILL"}, DropCapabilities: []string{"ALL"}}, capKill, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
				s := statusOf(t, n.RunPod(t, opts...).Run(t, image, capabilities(tt.caps)))
				for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
					got := capSet(t, s, set)
					if got&tt.has != tt.has || got&tt.hasNot != 0 || tt.exactly && got != tt.has {
						t.Errorf("%s is %#x, want %#x in it and %#x not, exactly: %t", set, got, tt.has, tt.hasNot, tt.exactly)
					}
				}
				if got := capSet(t, s, "CapInh"); got != 0 {
					t.Errorf("inheritable capabilities %#x, want none", got)
				}
			})
		})
	}
}

// TestAmbientCapabilities: they are cleared, as on containerd. What capabilities of another user than root
// mean is not settled in Kubernetes (kubernetes#56374).
func TestAmbientCapabilities(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := n.RunPod(t, opts...).Run(t, image, nodetest.User(1000, 1000), nodetest.Shell("cat /proc/self/status"), capabilities(
			&runtimeapi.Capability{AddAmbientCapabilities: []string{"NET_ADMIN"}}))
		c.Wait(t)
		status := map[string]string{}
		for _, line := range lines(c.Log(t).Stdout()) {
			key, value, _ := strings.Cut(line, ":")
			status[key] = fields(value)
		}
		for _, set := range []string{"CapAmb", "CapInh", "CapEff"} {
			if got := capSet(t, status, set); got != 0 {
				t.Errorf("%s is %#x for user 1000, want none", set, got)
			}
		}
	})
}

// TestUnknownCapability: one that this kernel does not know is left out, for newer ones have it; what cannot
// be a name is an error.
func TestUnknownCapability(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	add := func(name string) nodetest.ContainerOption {
		return capabilities(&runtimeapi.Capability{AddCapabilities: []string{name}})
	}
	pod.Run(t, image, add("OF_TOMORROW"))
	wantCreateError(t, pod, image, codes.InvalidArgument, "SYS ADMIN", add("SYS ADMIN"))
}

// TestUser runs as users that the image's /etc/passwd has and has not, with both group policies. Group extra,
// 2000, has the member nonroot in the image.
func TestUser(t *testing.T) {
	n := sharedNode(t)
	strict := runtimeapi.SupplementalGroupsPolicy_Strict
	for name, tt := range map[string]struct {
		image  string
		change func(*runtimeapi.LinuxContainerSecurityContext)
		uid    int64
		gid    int64
		groups []int64
	}{
		"uid": {labimage.Demo, func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUser = id(1000) }, 1000, 1000, []int64{1000, 2000}},
		"uid and gid": {labimage.Demo, func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.RunAsUser, s.RunAsGroup = id(1000), id(3000)
		}, 1000, 3000, []int64{2000, 3000}},
		"uid that the image does not know": {labimage.Demo, func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUser = id(4321) }, 4321, 0, []int64{0}},
		"username":                         {labimage.Demo, func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUsername = "nonroot" }, 1000, 1000, []int64{1000, 2000}},
		"the image's user":                 {labimage.User, func(*runtimeapi.LinuxContainerSecurityContext) {}, 1000, 1000, []int64{1000, 2000}},
		"merged groups": {labimage.Demo, func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.RunAsUser, s.SupplementalGroups = id(1000), []int64{5000}
		}, 1000, 1000, []int64{1000, 2000, 5000}},
		"strict groups": {labimage.Demo, func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.RunAsUser, s.SupplementalGroups, s.SupplementalGroupsPolicy = id(1000), []int64{5000}, strict
		}, 1000, 1000, []int64{1000, 5000}},
		"strict and no groups": {labimage.Demo, func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.RunAsUser, s.SupplementalGroupsPolicy = id(1000), strict
		}, 1000, 1000, []int64{1000}},
	} {
		t.Run(name, func(t *testing.T) {
			image := n.Image(t, tt.image)
			bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
				c := n.RunPod(t, opts...).Run(t, image, security(tt.change))
				if uid, gid := c.Exec(t, "id", "-u"), c.Exec(t, "id", "-g"); uid != text(tt.uid) || gid != text(tt.gid) {
					t.Errorf("inside it is %s:%s, want %d:%d", uid, gid, tt.uid, tt.gid)
				}
				if got := groupsOf(t, c); !slices.Equal(got, tt.groups) {
					t.Errorf("inside it has the groups %d, want %d", got, tt.groups)
				}
				user := c.Status(t).GetUser().GetLinux()
				reported := slices.Sorted(slices.Values(user.GetSupplementalGroups()))
				if user.GetUid() != tt.uid || user.GetGid() != tt.gid || !slices.Equal(reported, tt.groups) {
					t.Errorf("ContainerStatus reports %v, want %d:%d and the groups %d", user, tt.uid, tt.gid, tt.groups)
				}
			})
		})
	}
}

func id(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }

func text(n int64) string { return strconv.FormatInt(n, 10) }

// groupsOf are the supplemental groups, sorted.
func groupsOf(t *testing.T, c *nodetest.Container) []int64 {
	t.Helper()
	var out []int64
	for _, word := range strings.Fields(statusOf(t, c)["Groups"]) {
		gid, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, gid)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestUserThatCannotBe(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	for says, change := range map[string]func(*runtimeapi.LinuxContainerSecurityContext){
		"nobody-here":  func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUsername = "nobody-here" },
		"65536":        func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUser = id(65536) },
		"run_as_group": func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsGroup = id(5) },
	} {
		wantCreateError(t, pod, image, codes.InvalidArgument, says, security(change))
	}
}

func TestReadOnlyRootFilesystem(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := n.RunPod(t, opts...).Run(t, image, security(func(s *runtimeapi.LinuxContainerSecurityContext) { s.ReadonlyRootfs = true }))
		r, err := c.TryExec(t.Context(), "touch", "/made")
		if err != nil || r.ExitCode == 0 || !strings.Contains(string(r.Stderr), "Read-only file system") {
			t.Errorf("touch on the root filesystem: %v, %v, want EROFS", r, err)
		}
		c.Exec(t, "touch", "/dev/shm/made")
	})
}

func TestNoNewPrivs(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		for set, want := range map[bool]string{true: "1", false: "0"} {
			c := pod.Run(t, image, security(func(s *runtimeapi.LinuxContainerSecurityContext) { s.NoNewPrivs = set }))
			if got := statusOf(t, c)["NoNewPrivs"]; got != want {
				t.Errorf("no_new_privs %t gives %s inside", set, got)
			}
		}
	})
}

// TestMaskedAndReadOnlyPaths holds them and, for procMount Unmasked, that there are none: kubelet sends empty lists.
func TestMaskedAndReadOnlyPaths(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		c := pod.Run(t, image, security(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.MaskedPaths, s.ReadonlyPaths = []string{"/proc/timer_list", "/proc/acpi", "/proc/nowhere"}, []string{"/proc/sys"}
		}))
		if got := c.Exec(t, "wc", "-c", "/proc/timer_list"); fields(got) != "0 /proc/timer_list" {
			t.Errorf("the masked file has %q", got)
		}
		if got := mountFlags(t, c, "/proc/sys"); !slices.Contains(got, "ro") {
			t.Errorf("/proc/sys has the mount options %q, want ro", got)
		}
		c = pod.Run(t, image)
		for _, path := range []string{"/proc/timer_list", "/proc/sys"} {
			if got := mountFlags(t, c, path); got != nil {
				t.Errorf("unmasked: %s is a mount with the options %q", path, got)
			}
		}
	})
}

// TestSELinuxOptionsWhereTheHostHasNone: labels are ignored there, as on containerd, but not what is none.
func TestSELinuxOptionsWhereTheHostHasNone(t *testing.T) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("the host has SELinux")
	}
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	level := func(level string) nodetest.ContainerOption {
		return security(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.SelinuxOptions = &runtimeapi.SELinuxOption{Type: "container_t", Level: level}
		})
	}
	pod := n.RunPod(t)
	pod.Run(t, image, level("s0:c1,c2"))
	wantCreateError(t, pod, image, codes.InvalidArgument, "nonsense", level("nonsense"))
}

// usersInHostNetwork is a pod with a user namespace of its own in the node's network.
func usersInHostNetwork(req *runtimeapi.RunPodSandboxRequest) {
	req.Config.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
}

func TestUserNamespaceWithHostNetwork(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t, usersInHostNetwork)
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Capabilities("NET_ADMIN"), nodetest.Unconfined)
	if got := fields(c.Exec(t, "cat", "/proc/self/uid_map")); got != "0 "+text(int64(pod.Range(t)))+" 65536" {
		t.Errorf("uid_map is %q, want the pod's range", got)
	}
	var host string
	err := n.World.Do(func() (err error) {
		host, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	if got := c.Exec(t, "readlink", "/proc/self/ns/net"); err != nil || got != host {
		t.Errorf("the network namespace is %s, want the node's, %s (%v)", got, host, err)
	}
	if r, err := c.TryExec(t.Context(), "ip", "link", "set", "lo", "mtu", "1400"); err != nil || r.ExitCode == 0 {
		t.Errorf("in-pod root changes the node's network: %v, %v", r, err)
	}
}

// TestSecurityFeatures: kubelet asks them before it sends such pods.
func TestSecurityFeatures(t *testing.T) {
	n := sharedNode(t)
	resp, err := n.Runtime.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if f := resp.GetFeatures(); !f.GetSupplementalGroupsPolicy() || !f.GetUserNamespacesHostNetwork() {
		t.Errorf("features are %v, want supplemental_groups_policy and user_namespaces_host_network", f)
	}
	for _, h := range resp.GetRuntimeHandlers() {
		if !h.GetFeatures().GetUserNamespaces() {
			t.Errorf("handler %q has the features %v, want user_namespaces", h.GetName(), h.GetFeatures())
		}
	}
}
