package leaks_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
)

type lab struct {
	world  *labnode.World
	dir    string
	cgroup string
	scope  leaks.Scope
	ranges []string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	world, err := labnode.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(world.Close)
	dir, err := os.MkdirTemp("/tmp", "leaks-")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{world: world, dir: dir, cgroup: filepath.Base(dir)}
	t.Cleanup(func() {
		if err := errors.Join(labnode.RemoveCgroups(l.cgroup), labnode.RemoveDir(dir)); err != nil {
			t.Error(err)
		}
	})
	for _, sub := range []string{"state", "netns", "net", "m"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l.scope = leaks.Scope{
		Namespaces: world,
		MountRoots: []string{dir},
		StateDirs:  []string{filepath.Join(dir, "state")},
		NetNSDir:   filepath.Join(dir, "netns"),
		Cgroup:     "/" + l.cgroup,
		Mark:       l.cgroup,
		HasID:      func(id uint32) bool { return id == strayID },
		AddressDir: filepath.Join(dir, "net"),
		Bridge:     "bridge0",
		Ranges:     func(context.Context) ([]string, error) { return l.ranges, nil },
	}
	return l
}

func (l *lab) take(t *testing.T) leaks.Inventory {
	t.Helper()
	inv, err := l.scope.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func (l *lab) check(t *testing.T, before leaks.Inventory, patience time.Duration) []leaks.Thing {
	t.Helper()
	found, err := l.scope.Check(t.Context(), before, patience)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (l *lab) leakMount(t *testing.T) func() error {
	point := filepath.Join(l.dir, "m")
	l.do(t, func() error { return unix.Mount("tmpfs", point, "tmpfs", 0, "") })
	return func() error {
		return l.world.Do(func() error { return unix.Unmount(point, 0) })
	}
}

func (l *lab) leakFile(t *testing.T, name string) func() error {
	path := filepath.Join(l.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	return func() error { return os.Remove(path) }
}

func (l *lab) leakFIFO(t *testing.T) func() error {
	path := filepath.Join(l.dir, "state/out")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() error { return os.Remove(path) }
}

func (l *lab) leakCgroup(t *testing.T) func() error {
	path := l.makeCgroup(t)
	return func() error { return os.Remove(path) }
}

func (l *lab) makeCgroup(t *testing.T) string {
	t.Helper()
	roots, err := leaks.CgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range roots {
		if strings.Contains(root, "cpuset") {
			continue // wants its cpus and memory nodes set first
		}
		path := filepath.Join(root, l.cgroup, "pod")
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Fatal("no cgroup hierarchy is mounted")
	return ""
}

func (l *lab) leakProcessByID(t *testing.T) func() error {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: strayID, Gid: strayID}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() error { return endProcess(cmd) }
}

func (l *lab) leakProcessByNetNS(t *testing.T) func() error {
	cmd := exec.Command("sleep", "1001")
	if err := l.world.Start(cmd); err != nil {
		t.Fatal(err)
	}
	return func() error { return endProcess(cmd) }
}

func (l *lab) leakProcessByCgroup(t *testing.T) func() error {
	cgroup := l.makeCgroup(t)
	cmd := exec.Command("sh", "-c", "echo $$ > "+cgroup+"/cgroup.procs && exec sleep 1002")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.awaitMember(t, cgroup)
	return func() error { return errors.Join(endProcess(cmd), labnode.RemoveCgroups(l.cgroup)) }
}

func (l *lab) leakNamespaceFD(t *testing.T) func() error {
	l.scope.Daemons = []int{os.Getpid()}
	file, err := os.Open(filepath.Join(l.world.ProcDir(), "ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	return file.Close
}

func (l *lab) leakCloneFD(t *testing.T) func() error {
	l.scope.Daemons = []int{os.Getpid()}
	fd, err := unix.OpenTree(unix.AT_FDCWD, filepath.Join(l.dir, "state"), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return func() error { return unix.Close(fd) }
}

func (l *lab) awaitMember(t *testing.T, cgroup string) {
	t.Helper()
	for range 500 {
		members, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		procs, err := leaks.Processes()
		if err != nil {
			t.Fatal(err)
		}
		for _, proc := range procs {
			if len(members) > 0 && proc.Cmdline == "sleep 1002" {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no process came into %s", cgroup)
}

func (l *lab) leakLink(t *testing.T) func() error {
	l.addLink(t, "stray0")
	return func() error {
		return l.world.Do(func() error {
			link, err := netlink.LinkByName("stray0")
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		})
	}
}

func (l *lab) addLink(t *testing.T, name string) {
	t.Helper()
	l.do(t, func() error {
		if name == l.scope.Bridge {
			return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}})
		}
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"})
	})
}

func (l *lab) leakRule(t *testing.T) func() error {
	l.iptables(t, "-A", "FORWARD", "-s", "10.88.0.7/32", "-j", "ACCEPT")
	return func() error {
		_, err := l.world.Output(exec.Command("iptables", "-w", "-D", "FORWARD", "-s", "10.88.0.7/32", "-j", "ACCEPT"))
		return err
	}
}

func (l *lab) iptables(t *testing.T, args ...string) {
	t.Helper()
	if _, err := l.world.Output(exec.Command("iptables", append([]string{"-w"}, args...)...)); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) leakRange(*testing.T) func() error {
	l.ranges = []string{"2013265920:65536"}
	return func() error { l.ranges = nil; return nil }
}

func (l *lab) do(t *testing.T, f func() error) {
	t.Helper()
	if err := l.world.Do(f); err != nil {
		t.Fatal(err)
	}
}

func endProcess(cmd *exec.Cmd) error {
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		return err
	}
	return nil
}

func leakLease(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	if _, err := leasesapi.NewLeasesClient(conn).Create(ctx, &leasesapi.CreateRequest{ID: "stray"}); err != nil {
		t.Fatal(err)
	}
}

func leakSnapshot(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	request := &snapshotsapi.PrepareSnapshotRequest{
		Snapshotter: "overlayfs",
		Key:         "stray",
		Labels:      map[string]string{"containerd.io/gc.root": "test"},
	}
	if _, err := snapshotsapi.NewSnapshotsClient(conn).Prepare(ctx, request); err != nil {
		t.Fatal(err)
	}
}
