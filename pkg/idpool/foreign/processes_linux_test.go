package foreign

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// start starts a program that waits until the test ends.
func start(t *testing.T, attr *syscall.SysProcAttr, argv ...string) int {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = attr
	attr.Pdeathsig, attr.Setpgid = syscall.SIGKILL, true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it and its children may be dead
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// inNamespace is a process that is root in a user namespace that maps r.
func inNamespace(r idpool.Range) *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(r.Start), Size: int(r.Length)}}
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
}

// pin binds the user namespace of a process, and returns the pattern of pins.
func pin(t *testing.T, pid int) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "user")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Join("/proc", strconv.Itoa(pid), "ns/user"), path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "*")
}

// nested waits until a child of pid is in a namespace of its own.
func nested(t *testing.T, pid int) int {
	t.Helper()
	own, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns/user"))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "task", strconv.Itoa(pid), "children"))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range strings.Fields(string(text)) {
			maps, err := os.ReadFile(filepath.Join("/proc", word, "uid_map"))
			link, linkErr := os.Readlink(filepath.Join("/proc", word, "ns/user"))
			if child, convErr := strconv.Atoi(word); err == nil && linkErr == nil && convErr == nil && link != own && len(maps) > 0 {
				return child
			}
		}
	}
	t.Fatal("no nested namespace appears")
	return 0
}

func TestProcessesFindsForeignNamespaces(t *testing.T) {
	testkit.RequireRoot(t)
	pid := start(t, inNamespace(unit(1)), "sleep", "100")
	got := look(t, Processes("/proc", "/nonexistent/*"), &fakeLedger{})
	wantOwners(t, got, Owner{Kind: KindNamespace, Range: unit(1), Who: who(pid, "sleep")})
}

// TestProcessesPassesOverPods: their pinned namespaces, and those that processes in them make.
func TestProcessesPassesOverPods(t *testing.T) {
	testkit.RequireRoot(t)
	pid := start(t, inNamespace(unit(1)), "sh", "-c", "unshare --user --map-root-user sleep 100 & wait")
	nested(t, pid)
	pins := pin(t, pid)
	if got := look(t, Processes("/proc", pins), &fakeLedger{}); len(got) != 0 {
		t.Errorf("found %+v", got)
	}
	if got := look(t, Processes("/proc", "/nonexistent/*"), &fakeLedger{}); len(got) != 2 {
		t.Errorf("without the pin found %+v, want both namespaces", got)
	}
}

// TestProcessesTellsOfASecondOwner: another namespace over the ids of a running pod is what this is for.
func TestProcessesTellsOfASecondOwner(t *testing.T) {
	testkit.RequireRoot(t)
	pins := pin(t, start(t, inNamespace(unit(1)), "sleep", "100"))
	intruder := start(t, inNamespace(unit(1)), "sleep", "100")
	l := &fakeLedger{}
	l.hold(unit(1), idpool.StateAllocated, "pod-1")
	wantOwners(t, look(t, Processes("/proc", pins), l), Owner{Kind: KindNamespace, Range: unit(1), Who: who(intruder, "sleep"), Pod: "pod-1"})
}

func TestProcessesFindsCredentials(t *testing.T) {
	testkit.RequireRoot(t)
	for name, cred := range map[string]*syscall.Credential{
		"uid":                 {Uid: unit(2).Start + 5},
		"gid":                 {Gid: unit(2).Start + 5},
		"supplementary group": {Groups: []uint32{unit(2).Start + 5}},
	} {
		t.Run(name, func(t *testing.T) {
			pid := start(t, &syscall.SysProcAttr{Credential: cred}, "sleep", "100")
			wantOwners(t, look(t, Processes("/proc", "/nonexistent/*"), &fakeLedger{}),
				Owner{Kind: KindProcess, Range: idpool.Range{Start: unit(2).Start + 5, Length: 1}, Who: who(pid, "sleep")})
		})
	}
}

// lookMeanwhile looks while a process is there that has ended when it is looked at again. Nobody waits for it before the test ends. A
// machine that is busy may see it at neither time; then that is tried again.
func lookMeanwhile(t *testing.T, attr func() *syscall.SysProcAttr) []Owner {
	t.Helper()
	for range 20 {
		start(t, attr(), "sleep", "0.15")
		began := time.Now()
		got := look(t, Processes("/proc", "/nonexistent/*"), &fakeLedger{})
		if time.Since(began) >= confirmAfter {
			return got
		}
	}
	t.Fatal("the process was never seen")
	return nil
}

// TestProcessesPassesOverMoments: the helper that makes a pod's namespaces has the pod's ids before it is in one.
func TestProcessesPassesOverMoments(t *testing.T) {
	testkit.RequireRoot(t)
	got := lookMeanwhile(t, func() *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: unit(2).Start}}
	})
	if len(got) != 0 {
		t.Errorf("found %+v", got)
	}
}

// TestProcessesPassesOverZombies: what has ended uses nothing, though nobody has waited for it yet.
func TestProcessesPassesOverZombies(t *testing.T) {
	testkit.RequireRoot(t)
	start(t, inNamespace(unit(1)), "true")
	if got := lookMeanwhile(t, func() *syscall.SysProcAttr { return inNamespace(unit(2)) }); len(got) != 0 {
		t.Errorf("found %+v", got)
	}
}

func TestProcessesPassesOverSurvivors(t *testing.T) {
	testkit.RequireRoot(t)
	start(t, inNamespace(unit(1)), "sleep", "100")
	l := &fakeLedger{}
	l.hold(unit(1), idpool.StateQuarantined, "pod-1")
	if got := look(t, Processes("/proc", "/nonexistent/*"), l); len(got) != 0 {
		t.Errorf("what is left of a pod whose range rests is told as %+v", got)
	}
}
