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
	"google.golang.org/grpc/metadata"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// strayID is a host id that no other program of a test machine runs as.
const strayID = 2147352000

// TestCheckNamesEveryKindOfLeak makes one leak of each kind and wants it named, and gone once it is undone.
func TestCheckNamesEveryKindOfLeak(t *testing.T) {
	testkit.RequireRoot(t)
	lab := newLab(t)
	sandbox := strings.Repeat("0123456789abcdef", 4)

	cases := []struct {
		kind string
		want string // in the leak's name
		leak func(t *testing.T) (undo func() error)
	}{
		{"mount", "m (tmpfs)", lab.leakMount},
		{"state file", sandbox, func(t *testing.T) func() error { return lab.leakFile(t, "state/"+sandbox) }},
		{"state file", "k8s.io/" + sandbox, func(t *testing.T) func() error {
			return lab.leakFile(t, "state/io.containerd.runtime.v2.task/k8s.io/"+sandbox)
		}},
		{"network namespace", "cni-1", func(t *testing.T) func() error { return lab.leakFile(t, "netns/cni-1") }},
		{"CNI address", "10.88.0.7", func(t *testing.T) func() error { return lab.leakFile(t, "net/10.88.0.7") }},
		{"fifo", "out", lab.leakFIFO},
		{"cgroup", "/pod", lab.leakCgroup},
		{"process", "sleep 1000", lab.leakProcessByID},
		{"process", "sleep 1001", lab.leakProcessByNetNS},
		{"process", "sleep 1002", lab.leakProcessByCgroup},
		{"daemon's namespace", "net:[", lab.leakNamespaceFD},
		{"daemon's detached mount", "/", lab.leakCloneFD},
		{"interface", "stray0 (veth)", lab.leakLink},
		{"packet filter rule", "10.88.0.7/32", lab.leakRule},
		{"id range", "2013265920:65536", lab.leakRange},
	}
	for _, c := range cases {
		t.Run(c.kind+" "+c.want, func(t *testing.T) {
			before := lab.take(t)
			undo := c.leak(t)
			found := lab.check(t, before, 0)
			if !names(found, c.kind, c.want) {
				t.Errorf("found %v, want a %s with %q", found, c.kind, c.want)
			}
			if err := undo(); err != nil {
				t.Fatal(err)
			}
			if left := lab.check(t, before, 5*time.Second); len(left) != 0 {
				t.Errorf("still found once undone: %v", left)
			}
		})
	}
}

// TestCheckPassesOverWhatMayStay holds what is no leak: the bridge, the plugins' shared chains,
// host-local's bookkeeping, files without an id, bundles that containerd discards, and daemons.
func TestCheckPassesOverWhatMayStay(t *testing.T) {
	testkit.RequireRoot(t)
	lab := newLab(t)
	before := lab.take(t)
	lab.leakFile(t, "net/last_reserved_ip.0")
	lab.leakFile(t, "net/lock")
	lab.leakFile(t, "state/daemon.lock")
	lab.leakFile(t, "state/io.containerd.runtime.v2.task/k8s.io/."+strings.Repeat("0123456789abcdef", 4)+"/log.json")
	lab.addLink(t, "bridge0")
	lab.iptables(t, "-N", "CNI-FORWARD")
	lab.iptables(t, "-A", "FORWARD", "-j", "CNI-FORWARD")
	daemon := exec.Command("sleep", "1003")
	if err := lab.world.Start(daemon); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = endProcess(daemon) })
	lab.scope.Daemons = []int{daemon.Process.Pid}
	if found := lab.check(t, before, 0); len(found) != 0 {
		t.Errorf("found %v", found)
	}
}

// TestCheckPassesOverWhatADaemonKeeps holds that a private /proc and a stage for clones are no leak.
func TestCheckPassesOverWhatADaemonKeeps(t *testing.T) {
	testkit.RequireRoot(t)
	lab := newLab(t)
	lab.scope.Daemons = []int{os.Getpid()}
	before := lab.take(t)
	for fsType, mode := range map[string]string{"proc": "", "tmpfs": "0700"} {
		openDetached(t, fsType, mode)
	}
	namespace, err := os.Open(filepath.Join(lab.world.ProcDir(), "ns/mnt"))
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	if found := lab.check(t, before, 0); len(found) != 0 {
		t.Errorf("found %v", found)
	}
	openDetached(t, "tmpfs", "0755")
	if found := lab.check(t, before, 0); !names(found, "daemon's detached mount", "/") {
		t.Errorf("found %v, want a tmpfs that is no stage", found)
	}
}

// openDetached holds a detached file system open until the test ends.
func openDetached(t *testing.T, fsType, mode string) {
	t.Helper()
	fs, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	if mode != "" {
		if err := unix.FsconfigSetString(fs, "mode", mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatal(err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(mnt) })
}

func TestCheckNamesContainerdsRecords(t *testing.T) {
	c := nodetest.StartContainerd(t)
	conn, err := c.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	scope := leaks.Scope{Containerd: conn, ContainerdNamespace: labnode.Namespace}
	before, err := scope.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", labnode.Namespace)
	leakLease(ctx, t, conn)
	leakSnapshot(ctx, t, conn)
	found, err := scope.Check(t.Context(), before, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"containerd lease", "containerd snapshot"} {
		if !names(found, kind, "stray") {
			t.Errorf("found %v, want a %s", found, kind)
		}
	}
}

func TestCheckReportsWhatItCannotSee(t *testing.T) {
	testkit.RequireRoot(t)
	lab := newLab(t)
	lab.scope.Ranges = func(context.Context) ([]string, error) { return nil, errors.New("no answer") }
	if _, err := lab.scope.Take(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("Take = %v, want the error of Ranges", err)
	}
}

func names(found []leaks.Thing, kind, part string) bool {
	for _, thing := range found {
		if thing.Kind == kind && strings.Contains(thing.Name, part) {
			return true
		}
	}
	return false
}

// lab is a world with a scope over it and ways to leak things in it.
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

// makeCgroup makes the pod's cgroup in the first hierarchy that takes processes without further ado.
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

// leakNamespaceFD lets the test's own process be a daemon.
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
