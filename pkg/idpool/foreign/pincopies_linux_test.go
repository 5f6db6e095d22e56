package foreign

import (
	"fmt"
	"os"
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

// startInNamespaces starts a process in namespaces as those of a pod are, which are owned by the first id of r.
func startInNamespaces(t *testing.T, r idpool.Range) (pid int) {
	t.Helper()
	pid = start(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: r.Start}}, "unshare", "--user", "--net", "sleep", "100")
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	await(t, "unshare makes namespaces", func() bool {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		return err == nil && link != own
	})
	return pid
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

// leftBehind binds such namespaces, and leaves no process in them. It returns the pattern of the paths.
func leftBehind(t *testing.T, r idpool.Range) (pins string) {
	t.Helper()
	pid, dir := startInNamespaces(t, r), t.TempDir()
	for _, kind := range []string{"user", "net"} {
		source, target := fmt.Sprintf("/proc/%d/ns/%s", pid, kind), filepath.Join(dir, "a copy of "+kind)
		if err := os.WriteFile(target, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) }) // a test may have done it
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "*user")
}

// TestPinCopies: without a process in them, namespaces that are mounted are told of, the user namespace and what belongs to it.
func TestPinCopies(t *testing.T) {
	testkit.RequireRoot(t)
	pins := leftBehind(t, unit(1))
	got := look(t, PinCopies("/proc", "/nonexistent/*"), &fakeLedger{})
	if len(got) != 2 || got[0].Kind != KindPinCopy || got[0].Range != unit(1) || got[1].Range != unit(1) {
		t.Fatalf("found %+v, want two copies with the ids %v", got, unit(1))
	}
	if where := got[0].Where + got[1].Where; !strings.Contains(where, "a copy of user") || !strings.Contains(where, "a copy of net") {
		t.Errorf("they are at %s", where)
	}
	if got := look(t, PinCopies("/proc", pins), &fakeLedger{}); len(got) != 0 {
		t.Errorf("a pod's own pins are told of: %+v", got)
	}
	l := &fakeLedger{}
	l.hold(unit(1), idpool.StateAllocated, "next")
	if got := look(t, PinCopies("/proc", "/nonexistent/*"), l); len(got) != 2 || got[0].Pod != "next" {
		t.Errorf("with the ids at the next pod: %+v", got)
	}
	if got := look(t, PinCopies("/proc", filepath.Dir(pins)+"/x", filepath.Dir(pins)+"/*"), &fakeLedger{}); len(got) != 0 {
		t.Errorf("pins of other kinds are told of: %+v", got)
	}
}

// TestPinCopiesInAnotherMountNamespace are found through a process that is in it. That process binds it: what is mounted here for a
// moment, whoever makes a mount namespace on the machine has from then on.
func TestPinCopiesInAnotherMountNamespace(t *testing.T) {
	testkit.RequireRoot(t)
	holder, path := startInNamespaces(t, unit(2)), filepath.Join(t.TempDir(), "a copy of user")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pid := start(t, &syscall.SysProcAttr{}, "unshare", "--mount", "--propagation", "private", "sh", "-c",
		fmt.Sprintf(`mount --bind /proc/%d/ns/user "$0"; sleep 100`, holder), path)
	mounts := filepath.Join("/proc", strconv.Itoa(pid), "mountinfo")
	await(t, "the other namespace has the copy", func() bool {
		text, err := os.ReadFile(mounts)
		return err == nil && strings.Count(string(text), `a\040copy`) == 1
	})
	if err := syscall.Kill(holder, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	got := look(t, PinCopies("/proc", "/nonexistent/*"), &fakeLedger{})
	if len(got) != 1 || got[0].Range != unit(2) || !strings.HasPrefix(got[0].Who, "process "+strconv.Itoa(pid)) {
		t.Fatalf("found %+v, want the copy of process %d", got, pid)
	}
}

func TestParseNamespaceMount(t *testing.T) {
	for line, want := range map[string]pinCopy{
		`411 35 0:4 user:[4026532281] /tmp/a\040b rw shared:5 - nsfs nsfs rw`: {path: "/tmp/a b", inode: 4026532281},
		`411 35 0:4 net:[7] /x\134y rw - nsfs nsfs rw`:                        {path: `/x\y`, inode: 7},
		`35 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw`:                        {},
		`35 1 8:1 user:[5] /x rw shared:1 - tmpfs nsfs rw`:                    {},
		`35 1 0:4 user:[x] /x rw - nsfs nsfs rw`:                              {},
		`- nsfs `:                                                             {}, "": {}, "\n": {}, `35 - nsfs nsfs rw`: {},
	} {
		if got, ok := parseNamespaceMount(line); got != want || ok != (want.inode != 0) {
			t.Errorf("%q gives %+v, %t, want %+v", line, got, ok, want)
		}
	}
}

func FuzzParseNamespaceMount(f *testing.F) {
	f.Add(`411 35 0:4 user:[4026532281] /tmp/a\040b rw shared:5 - nsfs nsfs rw`)
	f.Fuzz(func(t *testing.T, line string) {
		if c, ok := parseNamespaceMount(line); !ok && c != (pinCopy{}) {
			t.Errorf("%q gives %+v without being one", line, c)
		}
	})
}
