package ns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// helperEnv makes the test binary play a process of a pod instead of running tests.
const helperEnv = "NS_TEST_HELPER"

func TestMain(m *testing.M) {
	if role := os.Getenv(helperEnv); role != "" {
		if err := helper(role, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if err := leftovers(); err != nil {
		fmt.Fprintln(os.Stderr, "left behind:", err)
		code = 1
	}
	os.Exit(code)
}

// leftovers reports pins that are still mounted and children that still live.
func leftovers() error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(data), testDirPrefix) {
		return fmt.Errorf("mounts below %s:\n%s", testDirPrefix, data)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); !errors.Is(err, unix.ECHILD) {
		return fmt.Errorf("child processes (wait4: %d, %w)", pid, err)
	}
	return nil
}

// helper is run inside a pod's namespaces.
func helper(role string, args []string) error {
	switch role {
	case "inotify": // opens as many instances as told, says how many, holds them until stdin ends
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		got := 0
		for ; got < n; got++ {
			if _, err := unix.InotifyInit1(unix.IN_CLOEXEC); err != nil {
				break
			}
		}
		fmt.Fprintln(os.Stdout, got)
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	case "sigpending": // queues as many signals to itself as told and says how many it could
		return queueSignals(args[0])
	case "parent", "young parent":
		return playParent(role == "young parent")
	case "no-userns":
		return createUnderZeroLimit()
	}
	return fmt.Errorf("no helper %q", role)
}

func queueSignals(count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_SIGPENDING, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_SIGPENDING, &l); err != nil {
		return err
	}
	const realtime, siQueue = 40, -1
	runtime.LockOSThread()
	set := unix.Sigset_t{Val: [16]uint64{1 << (realtime - 1)}}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		return err
	}
	info := [32]int32{realtime, 0, siQueue}
	got := 0
	for ; got < n; got++ {
		_, _, errno := unix.Syscall6(unix.SYS_RT_TGSIGQUEUEINFO, uintptr(unix.Getpid()), uintptr(unix.Gettid()),
			realtime, uintptr(unsafe.Pointer(&info)), 0, 0)
		if errno != 0 {
			break
		}
	}
	fmt.Fprintln(os.Stdout, got)
	return nil
}

// testDirPrefix starts the name of every directory that this process mounts in.
var testDirPrefix = "/userns-shim-ns-" + strconv.Itoa(os.Getpid()) + "-"

var nextRange atomic.Uint32

// newIDs returns a range that no other call in this process returns. All are below 0x70000000: from there on are those of other packages'
// tests and of the lab's nodes, which take whatever else has them for a leak.
func newIDs() *IDMap {
	return &IDMap{HostID: 0x50000000 + uint32(os.Getpid()%500)<<20 + nextRange.Add(1)<<16, Length: 65536}
}

// newRequest asks for all namespaces of a pod, pinned in a directory of the test's own.
func newRequest(t testing.TB) Request {
	t.Helper()
	testkit.RequireRoot(t)
	dir, err := os.MkdirTemp("", testDirPrefix[1:]+"*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("something is left: %v", err)
		}
	})
	return Request{
		User: newIDs(), Network: true, IPC: true, UTS: true, Hostname: "pod-1",
		Dir: filepath.Join(dir, "ns"), NetPath: filepath.Join(dir, "net"),
	}
}

// create makes the namespaces of req and removes them when the test ends.
func create(t testing.TB, req Request) Pins {
	t.Helper()
	pins, err := Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, req) })
	return pins
}

func remove(t testing.TB, req Request) {
	t.Helper()
	if err := Remove(t.Context(), req.Dir, req.NetPath); err != nil {
		t.Errorf("Remove: %v", err)
	}
	for _, path := range []string{req.Dir, req.NetPath} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after Remove, %s: %v", path, err)
		}
	}
}

// inside prepares a command that runs in the pod's namespaces as its root.
func inside(t testing.TB, pins Pins, args ...string) *exec.Cmd {
	t.Helper()
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		t.Fatalf("%v (Debian's package util-linux has it)", err)
	}
	var flags []string
	for flag, path := range map[string]string{"--user=": pins.User, "--net=": pins.Network, "--ipc=": pins.IPC, "--uts=": pins.UTS} {
		if path != "" {
			flags = append(flags, flag+path)
		}
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), nsenter, append(append(flags, "--"), args...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// insideOutput runs a command in the pod and returns what it printed, without space around it.
func insideOutput(t testing.TB, pins Pins, args ...string) string {
	t.Helper()
	out, err := inside(t, pins, args...).Output()
	if err != nil {
		t.Fatalf("%q in the pod: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

// insideHelper prepares the test binary in a role. It is executed through a descriptor, because
// the pod's root may not walk the directories that lead to it.
func insideHelper(t testing.TB, pins Pins, role string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { self.Close() })
	cmd := inside(t, pins, append([]string{"/proc/self/fd/3"}, args...)...)
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = append(os.Environ(), helperEnv+"="+role)
	return cmd
}

func openPin(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
