package leaks_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
// makeCgroup makes the pod's cgroup in the first hierarchy that takes processes without further ado.
// leakNamespaceFD lets the test's own process be a daemon.
