package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

func TestOwnerOfThePinnedUserNamespaceIsTheRangesFirstID(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	want := pod.Range(t)
	pins := pinned(t, n, "user")
	if len(pins) != 1 {
		t.Fatalf("user namespaces are pinned at %v, want one", pins)
	}
	if got := ownerUID(t, pins[0]); got != want {
		t.Errorf("NS_GET_OWNER_UID of %s is %d, want %d", pins[0], got, want)
	}
	c := pod.Run(t, n.Image(t, labimage.Demo))
	inUse, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", c.PID(t)))
	if err != nil {
		t.Fatal(err)
	}
	if got := namespaceOf(t, pins[0]); got != inUse {
		t.Errorf("the container is in %s, pinned is %s", inUse, got)
	}
	// sysfs and CAP_NET_ADMIN inside hang on this.
	netOwner := owningUserNS(t, fmt.Sprintf("/proc/%d/ns/net", c.PID(t)))
	if netOwner != inUse {
		t.Errorf("the network namespace belongs to %s, want the pod's %s", netOwner, inUse)
	}
}

// pinned returns the paths, seen from here, at which namespaces of a kind are bind-mounted on the node.
func pinned(t *testing.T, n *nodetest.Node, kind string) []string {
	t.Helper()
	table, err := os.ReadFile(filepath.Join(n.World.ProcDir(), "mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, line := range lines(strings.TrimSpace(string(table))) {
		// The fourth field is the mount's root within nsfs, such as "user:[4026532000]".
		if f := strings.Fields(line); strings.HasPrefix(f[3], kind+":[") {
			paths = append(paths, filepath.Join(n.World.ProcDir(), "root", f[4]))
		}
	}
	return paths
}

func ownerUID(t *testing.T, path string) uint32 {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var uid uint32
	// Newer than what the library wraps: ioctl_ns(2).
	const nsGetOwnerUID = 0xb704
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), nsGetOwnerUID, uintptr(unsafe.Pointer(&uid))); errno != 0 {
		t.Fatalf("NS_GET_OWNER_UID of %s: %v", path, errno)
	}
	return uid
}

func owningUserNS(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		t.Fatalf("NS_GET_USERNS of %s: %v", path, err)
	}
	owner := os.NewFile(uintptr(fd), "owner")
	defer owner.Close()
	return namespaceOf(t, fmt.Sprintf("/proc/self/fd/%d", fd))
}

// namespaceOf names the namespace that an open or pinned file stands for, as readlink of /proc/PID/ns does.
func namespaceOf(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatalf("stat %s: %v", path, err)
	}
	return fmt.Sprintf("user:[%d]", st.Ino)
}

func TestSandboxHasNoProcess(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	start := pod.Range(t)
	ns := namespaceOf(t, pinned(t, n, "user")[0])
	for _, p := range processes(t, func(p leaks.Process) bool {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", p.PID))
		return err == nil && link == ns || p.UID >= start && p.UID < start+65536 ||
			strings.Contains(p.Cgroups, pod.Request.Config.Linux.CgroupParent)
	}) {
		t.Errorf("process %d belongs to a sandbox without containers: %s", p.PID, p.Cmdline)
	}
}

func TestPodsSysctlsAreWritten(t *testing.T) {
	n := sharedNode(t)
	want := map[string]string{
		"kernel.shm_rmid_forced":              "1",
		"kernel.msgmax":                       "16384",
		"net.ipv4.ip_unprivileged_port_start": "80",
		"net.core.somaxconn":                  "777",
		"net.ipv4.ping_group_range":           "1000 2000", // groups of the pod, as it sees them
	}
	for _, kind := range []struct {
		name string
		opts []nodetest.PodOption
	}{{"with a user namespace", nil}, {"in the host's", []nodetest.PodOption{nodetest.HostUsers}}} {
		t.Run(kind.name, func(t *testing.T) {
			opts := kind.opts
			for key, value := range want {
				opts = append(opts, nodetest.Sysctl(key, value))
			}
			c := n.RunPod(t, opts...).Run(t, n.Image(t, labimage.Demo))
			for key, value := range want {
				file := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
				if got := fields(c.Exec(t, "cat", file)); got != value {
					t.Errorf("%s is %s, want %s", key, got, value)
				}
			}
		})
	}
}

// TestPodsSysctlOfGroups: the groups that may ping are the pod's, of which it has 65,536 in a user namespace.
func TestPodsSysctlOfGroups(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	const name = "net.ipv4.ping_group_range"
	groups := func(t *testing.T, opts ...nodetest.PodOption) string {
		t.Helper()
		return fields(n.RunPod(t, opts...).Output(t, image, nodetest.Command("cat", "/proc/sys/net/ipv4/ping_group_range")))
	}
	for asked, want := range map[string]string{"": "0 65535", "0 2147483647": "0 65535", "65535 65535": "65535 65535"} {
		var opts []nodetest.PodOption
		if asked != "" {
			opts = append(opts, nodetest.Sysctl(name, asked))
		}
		if got := groups(t, opts...); got != want {
			t.Errorf("with %q a pod in a user namespace lets groups %q ping, want %q", asked, got, want)
		}
	}
	if got, want := groups(t, nodetest.HostUsers), "0 2147483647"; got != want {
		t.Errorf("without a user namespace groups %q may ping, want %q", got, want)
	}
	_, err := n.TryRunPod(t, n.PodRequest(t, nodetest.Sysctl(name, "65536 70000")))
	wantError(t, err, codes.InvalidArgument, name, "65536 70000")
}

func TestHostNamespaces(t *testing.T) {
	n := sharedNode(t)
	for kind, set := range map[string]func(*runtimeapi.NamespaceOption){
		"net": func(o *runtimeapi.NamespaceOption) { o.Network = runtimeapi.NamespaceMode_NODE },
		"ipc": func(o *runtimeapi.NamespaceOption) { o.Ipc = runtimeapi.NamespaceMode_NODE },
		"pid": func(o *runtimeapi.NamespaceOption) { o.Pid = runtimeapi.NamespaceMode_NODE },
	} {
		t.Run(kind, func(t *testing.T) {
			pod := n.RunPod(t, nodetest.HostUsers, func(req *runtimeapi.RunPodSandboxRequest) {
				set(req.Config.Linux.SecurityContext.NamespaceOptions)
			})
			c := pod.Run(t, n.Image(t, labimage.Demo))
			for _, ns := range []string{"net", "ipc", "pid"} {
				got, host := c.Exec(t, "readlink", "/proc/self/ns/"+ns), hostNamespace(t, n, ns)
				if shared := got == host; shared != (ns == kind) {
					t.Errorf("%s namespace of the container is %s, the node's is %s", ns, got, host)
				}
			}
		})
	}
}
