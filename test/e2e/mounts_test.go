package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// eachUsers runs a test in a pod with a user namespace and in one without.
func eachUsers(t *testing.T, test func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod)) {
	t.Helper()
	n := sharedNode(t)
	t.Run("with a user namespace", func(t *testing.T) { test(t, n, n.RunPod(t)) })
	t.Run("in the host's", func(t *testing.T) { test(t, n, n.RunPod(t, nodetest.HostUsers)) })
}

// bind mounts a host path with more than nodetest.Mount knows.
func bind(hostPath, containerPath string, change func(*runtimeapi.Mount)) nodetest.ContainerOption {
	return func(c *runtimeapi.ContainerConfig) {
		m := &runtimeapi.Mount{HostPath: hostPath, ContainerPath: containerPath}
		change(m)
		c.Mounts = append(c.Mounts, m)
	}
}

func readOnlyRoot(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.ReadonlyRootfs = true }

// wantFailure runs a command that has to be refused inside.
func wantFailure(t *testing.T, c *nodetest.Container, argv ...string) {
	t.Helper()
	resp, err := c.TryExec(t.Context(), argv...)
	if err != nil {
		t.Fatalf("ExecSync of %q: %v", argv, err)
	}
	if resp.ExitCode == 0 {
		t.Errorf("%q works inside: %s", argv, resp.Stdout)
	}
}

func parseOwner(t *testing.T, text string) owner {
	t.Helper()
	var o owner
	if _, err := fmt.Sscanf(text, "%d:%d", &o.UID, &o.GID); err != nil {
		t.Fatalf("owner %q: %v", text, err)
	}
	return o
}

// withSubmount is a volume that has another filesystem in sub, whose files are root's.
func withSubmount(t *testing.T, n *nodetest.Node) string {
	t.Helper()
	dir := volume(t, n)
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o777); err != nil {
		t.Fatal(err)
	}
	mountOn(t, n, sub, "-t", "tmpfs", "-o", "mode=1777", "tmpfs")
	return dir
}

func TestReadOnlyMount(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		dir := withSubmount(t, n)
		write(t, filepath.Join(dir, "given"), "as it was", 1000, 1000)
		c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.ReadOnlyMount(dir, "/ro"))
		wantFailure(t, c, "touch", "/ro/made")
		wantFailure(t, c, "sh", "-c", "echo x > /ro/given")
		if got := c.Exec(t, "stat", "-c", "%u:%g", "/ro/given"); got != "1000:1000" {
			t.Errorf("a file of 1000 on the host belongs to %s inside", got)
		}
		c.Exec(t, "touch", "/ro/sub/made") // a read-only mount is so by itself, and not what is below
	})
}

func TestRecursiveReadOnlyMount(t *testing.T) {
	recursive := func(m *runtimeapi.Mount) { m.Readonly, m.RecursiveReadOnly = true, true }
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		c := pod.Run(t, n.Image(t, labimage.Demo), bind(withSubmount(t, n), "/ro", recursive))
		wantFailure(t, c, "touch", "/ro/made")
		wantFailure(t, c, "touch", "/ro/sub/made")
	})
	n := sharedNode(t)
	pod := n.RunPod(t)
	for name, change := range map[string]func(*runtimeapi.Mount){
		"not read-only": func(m *runtimeapi.Mount) { m.RecursiveReadOnly = true },
		"propagating": func(m *runtimeapi.Mount) {
			recursive(m)
			m.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		},
	} {
		_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(n.Image(t, labimage.Demo), bind(volume(t, n), "/ro", change)))
		t.Run(name, func(t *testing.T) { wantError(t, err, codes.InvalidArgument, "recursive", "/ro") })
	}
}

func TestMissingHostPathIsMadeAsADirectory(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		dir := filepath.Join(volume(t, n), "not", "yet")
		c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"))
		c.Exec(t, "touch", "/vol/made")
		for _, path := range []string{dir, filepath.Join(dir, "made")} {
			if got := ownerOf(t, path); got != (owner{}) {
				t.Errorf("%s belongs to %+v on disk, want 0:0", path, got)
			}
		}
		if info, err := os.Stat(dir); err != nil || info.Mode() != os.ModeDir|0o755 {
			t.Errorf("the missing path became %v, %v", info.Mode(), err)
		}
	})
}

func TestSymlinksOfTheHostPathLeadToTheRealDirectory(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		dir := volume(t, n)
		if err := os.MkdirAll(filepath.Join(dir, "real"), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Mount(filepath.Join(dir, "link"), "/vol"))
		c.Exec(t, "touch", "/vol/made")
		if _, err := os.Lstat(filepath.Join(dir, "real", "made")); err != nil {
			t.Error(err)
		}
	})
}

// TestSymlinkInTheImageIsResolvedInside mounts behind links of the image that lead out of it.
func TestSymlinkInTheImageIsResolvedInside(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		name := "link-" + filepath.Base(volume(t, n)) // a name that nobody else uses on the host
		spec := labimage.Catalogue(n.Box())[labimage.Demo]
		spec.Layers = append(spec.Layers[:len(spec.Layers):len(spec.Layers)], labimage.Layer{
			labimage.Symlink("absolute", "/tmp"), labimage.Symlink("beyond", "../../../../../../tmp"),
		})
		image := n.ImageOf(t, "linked:latest", spec)
		dir := volume(t, n)
		write(t, filepath.Join(dir, "file"), "here\n", 0, 0)
		for _, link := range []string{"absolute", "beyond"} {
			c := pod.Run(t, image, nodetest.Mount(dir, filepath.Join("/", link, name)))
			if got := c.Exec(t, "cat", filepath.Join("/tmp", name, "file")); got != "here" {
				t.Errorf("the mount behind /%s has a file with %q", link, got)
			}
		}
		inNode(t, n, func() error {
			if _, err := os.Lstat(filepath.Join("/tmp", name)); !os.IsNotExist(err) {
				return fmt.Errorf("the host has the mountpoint: %w", err)
			}
			return nil
		})
	})
}

func TestSharedMemoryIsThePods(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		image := n.Image(t, labimage.Demo)
		one, two := pod.Run(t, image), pod.Run(t, image, readOnlyRoot, nodetest.User(1000, 1000))
		one.Exec(t, "sh", "-c", "echo one > /dev/shm/note")
		two.Exec(t, "sh", "-c", "echo two > /dev/shm/other")
		if got := two.Exec(t, "cat", "/dev/shm/note") + one.Exec(t, "cat", "/dev/shm/other"); got != "onetwo" {
			t.Errorf("the containers read %q of each other's files", got)
		}
		if got := one.Exec(t, "stat", "-c", "%u:%g", "/dev/shm/other"); got != "1000:1000" {
			t.Errorf("a file of user 1000 belongs to %s in the other container", got)
		}
		if got := one.Exec(t, "stat", "-c", "%u:%g %a %n", "/dev/shm"); got != "0:0 1777 /dev/shm" {
			t.Errorf("/dev/shm is %s", got)
		}
		for _, flag := range []string{"rw", "nosuid", "nodev", "noexec"} {
			if got := mountFlags(t, two, "/dev/shm"); !slices.Contains(got, flag) {
				t.Errorf("/dev/shm has the mount options %q, want %s", got, flag)
			}
		}
		if _, err := os.Lstat("/dev/shm/note"); !os.IsNotExist(err) {
			t.Errorf("the host sees the pod's shared memory: %v", err)
		}
	})
}

// TestFilesOfKubelet mounts what kubelet mounts into every container, and holds whose they are.
func TestFilesOfKubelet(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		dir := volume(t, n)
		hosts, message := filepath.Join(dir, "etc-hosts"), filepath.Join(dir, "termination")
		write(t, hosts, "127.0.0.1 localhost kubelet-was-here\n", 0, 0)
		write(t, message, "", 0, 0)
		if err := os.Chmod(message, 0o666); err != nil {
			t.Fatal(err)
		}
		c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.User(1000, 1000),
			nodetest.Mount(hosts, "/etc/hosts"), nodetest.Mount(message, "/dev/termination-log"))
		for file, part := range map[string]string{
			"/etc/hosts": "kubelet-was-here", "/etc/hostname": pod.Request.Config.Hostname, "/etc/resolv.conf": "", "/dev/termination-log": "",
		} {
			if got := c.Exec(t, "cat", file); !strings.Contains(got, part) {
				t.Errorf("%s holds %q, want %q", file, got, part)
			}
			if got := c.Exec(t, "stat", "-c", "%u:%g", file); got != "0:0" {
				t.Errorf("%s belongs to %s inside, want 0:0", file, got)
			}
		}
		c.Exec(t, "sh", "-c", "echo last words > /dev/termination-log")
		if got, err := os.ReadFile(message); err != nil || string(got) != "last words\n" {
			t.Errorf("kubelet reads the message %q, %v", got, err)
		}
		wantFailure(t, c, "sh", "-c", "echo x >> /etc/hosts") // it is root's
	})
}

func TestResolvConfIsMadeFromTheDNSConfig(t *testing.T) {
	n := sharedNode(t)
	for _, opts := range [][]nodetest.PodOption{nil, {nodetest.HostUsers}} {
		silent := n.RunPod(t, append(slices.Clip(opts), func(req *runtimeapi.RunPodSandboxRequest) {
			req.Config.DnsConfig = &runtimeapi.DNSConfig{}
		})...)
		if got := silent.Run(t, n.Image(t, labimage.Demo)).Exec(t, "cat", "/etc/resolv.conf"); got != "" {
			t.Errorf("/etc/resolv.conf of a pod with an empty configuration holds %q", got)
		}
		pod := n.RunPod(t, append(slices.Clip(opts), func(req *runtimeapi.RunPodSandboxRequest) {
			req.Config.DnsConfig = &runtimeapi.DNSConfig{
				Servers: []string{"192.0.2.53", "192.0.2.54"}, Searches: []string{"a.example", "b.example"}, Options: []string{"ndots:5"},
			}
		})...)
		c := pod.Run(t, n.Image(t, labimage.Demo))
		want := "search a.example b.example nameserver 192.0.2.53 nameserver 192.0.2.54 options ndots:5"
		if got := fields(c.Exec(t, "cat", "/etc/resolv.conf")); got != want {
			t.Errorf("/etc/resolv.conf holds %q, want %q", got, want)
		}
		if got := c.Exec(t, "stat", "-c", "%u:%g", "/etc/resolv.conf"); got != "0:0" {
			t.Errorf("/etc/resolv.conf belongs to %s inside, want 0:0", got)
		}
	}
}

func TestMountOptions(t *testing.T) {
	options := func(names ...string) func(*runtimeapi.Mount) {
		return func(m *runtimeapi.Mount) { m.MountOptions = names }
	}
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		dir := volume(t, n)
		writeBox(t, n, dir, "true")
		c := pod.Run(t, n.Image(t, labimage.Demo), bind(dir, "/vol", options("noexec", "nodev", "nosuid", "nosymfollow")), nodetest.Mount(dir, "/plain"))
		got := mountOptions(t, c, "/vol")
		for _, want := range []string{"noexec", "nodev", "nosuid", "nosymfollow"} {
			if !slices.Contains(got, want) {
				t.Errorf("the mount has the options %v, want %s", got, want)
			}
		}
		c.Exec(t, "/plain/true")
		wantFailure(t, c, "sh", "-c", "/vol/true")
		for _, bad := range []string{"uid=0", "idmap", "rw,suid", "rshared", ""} {
			_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(n.Image(t, labimage.Demo), bind(dir, "/vol", options(bad))))
			wantError(t, err, codes.InvalidArgument, "/vol", fmt.Sprintf("%q", bad))
		}
	})
}

func TestMountOptionOfAccessTimes(t *testing.T) {
	n := sharedNode(t)
	dir := volume(t, n)
	noatime := bind(dir, "/vol", func(m *runtimeapi.Mount) { m.MountOptions = []string{"noatime"} })
	c := n.RunPod(t, nodetest.HostUsers).Run(t, n.Image(t, labimage.Demo), noatime)
	if got := mountOptions(t, c, "/vol"); !slices.Contains(got, "noatime") {
		t.Errorf("the mount has the options %v, want noatime", got)
	}
	pod := n.RunPod(t)
	_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(n.Image(t, labimage.Demo), noatime))
	wantError(t, err, codes.FailedPrecondition, "noatime", "/vol", "user namespace")
}

// mountOptions are those of one mount inside, as /proc/self/mountinfo has them.
func mountOptions(t *testing.T, c *nodetest.Container, path string) []string {
	t.Helper()
	for _, line := range lines(c.Exec(t, "cat", "/proc/self/mountinfo")) {
		if f := strings.Fields(line); f[4] == path {
			return strings.Split(f[5], ",")
		}
	}
	t.Fatalf("nothing is mounted on %s", path)
	return nil
}

// TestVolumeThatCannotBeIDMapped takes a merged overlay, which no kernel idmaps.
func TestVolumeThatCannotBeIDMapped(t *testing.T) {
	n := sharedNode(t)
	dir := volume(t, n)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(dir, "merged")
	mountOn(t, n, merged, "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir), "overlay")
	for name, opt := range map[string]nodetest.ContainerOption{
		"writable": nodetest.Mount(merged, "/vol"), "read-only": nodetest.ReadOnlyMount(merged, "/vol"),
	} {
		t.Run(name, func(t *testing.T) {
			pod := n.RunPod(t)
			_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(n.Image(t, labimage.Demo), opt))
			wantError(t, err, codes.InvalidArgument, "/vol", merged, "overlay", "cannot be idmapped", "hostUsers: true")
			c := n.RunPod(t, nodetest.HostUsers).Run(t, n.Image(t, labimage.Demo), opt)
			c.Exec(t, "ls", "/vol")
		})
	}
}
