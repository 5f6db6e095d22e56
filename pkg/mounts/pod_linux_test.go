package mounts

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideEnv makes the test binary a process inside a pod: it does what it is asked on standard input.
const insideEnv = "MOUNTS_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		serveInside()
		return
	}
	os.Exit(m.Run())
}

// nextRange gives every pod of the tests host ids of its own.
var nextRange atomic.Uint32

// testPod is a user namespace with a process in it.
type testPod struct {
	key     string
	mapping Mapping
	userns  string

	process *exec.Cmd
	in      *json.Encoder
	out     *json.Decoder
}

// newPod starts a process as root of a new user namespace, in the host's mount namespace.
func newPod(t testing.TB) *testPod {
	t.Helper()
	return newPodLength(t, 65536)
}

func newPodLength(t testing.TB, length uint32) *testPod {
	t.Helper()
	host := 1879048192 + 65536*nextRange.Add(1)
	p := &testPod{key: fmt.Sprintf("pod-%d", host), mapping: Mapping{HostID: host, Length: length}}
	extent := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(host), Size: int(length)}}
	p.process = exec.Command("/proc/self/exe")
	// With the race detector a program sleeps for a second when it ends, unless told otherwise.
	p.process.Env = append(os.Environ(), insideEnv+"=1", "GORACE=atexit_sleep_ms=0")
	p.process.Stderr = os.Stderr
	p.process.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: extent, GidMappings: extent,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
	stdin, err := p.process.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close() // the process ends with its input
		if err := p.process.Wait(); err != nil {
			t.Errorf("process inside the pod: %v", err)
		}
	})
	p.in, p.out = json.NewEncoder(stdin), json.NewDecoder(bufio.NewReader(stdout))
	p.userns = fmt.Sprintf("/proc/%d/ns/user", p.process.Process.Pid)
	return p
}

// task is one thing that the process inside does, as the ids given.
type task struct {
	Op       string `json:"op"`
	Path     string `json:"path"`
	To       string `json:"to,omitempty"` // second path, or name of an extended attribute
	UID, GID int
	Mode     uint32 `json:"mode,omitempty"`
}

// outcome is what came of it.
type outcome struct {
	Errno    syscall.Errno `json:"errno,omitempty"`
	UID, GID uint32
	Mode     uint32 `json:"mode,omitempty"`
	Data     []byte `json:"data,omitempty"`
}

// do has the process inside do something, which must succeed.
func (p *testPod) do(t testing.TB, do task) outcome {
	t.Helper()
	out := p.try(t, do)
	if out.Errno != 0 {
		t.Fatalf("inside the pod: %+v: %v", do, out.Errno)
	}
	return out
}

// try has the process inside do something that may be refused.
func (p *testPod) try(t testing.TB, do task) outcome {
	t.Helper()
	if err := p.in.Encode(do); err != nil {
		t.Fatal(err)
	}
	var out outcome
	if err := p.out.Decode(&out); err != nil {
		t.Fatalf("inside the pod: %+v: %v", do, err)
	}
	return out
}

// ids stats inside the pod.
func (p *testPod) ids(t testing.TB, path string) [2]uint32 {
	t.Helper()
	out := p.do(t, task{Op: "stat", Path: path})
	return [2]uint32{out.UID, out.GID}
}

// serveInside is the process inside.
func serveInside() {
	runtime.LockOSThread() // for setfsuid
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var t task
		if err := in.Decode(&t); err != nil {
			if errors.Is(err, io.EOF) {
				return
			}
			panic(err)
		}
		if err := out.Encode(perform(t)); err != nil {
			panic(err)
		}
	}
}

// perform does a task with its ids as those for files. Losing fsuid 0 takes the capabilities on files away.
func perform(t task) outcome {
	if t.Op == "run" {
		return performRun(t)
	}
	if t.GID != 0 {
		_ = unix.Setfsgid(t.GID)
		defer unix.Setfsgid(0) //nolint:errcheck // tells the previous id, never an error
	}
	if t.UID != 0 {
		_ = unix.Setfsuid(t.UID)
		defer unix.Setfsuid(0) //nolint:errcheck // as above
	}
	var (
		out outcome
		err error
	)
	switch t.Op {
	case "stat":
		var st unix.Stat_t
		err = unix.Lstat(t.Path, &st)
		out.UID, out.GID, out.Mode = st.Uid, st.Gid, st.Mode
	case "read":
		out.Data, err = os.ReadFile(t.Path)
	case "create":
		err = os.WriteFile(t.Path, []byte("made inside"), os.FileMode(t.Mode))
	case "append":
		var f *os.File
		if f, err = os.OpenFile(t.Path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			_, err = f.WriteString("more")
			f.Close()
		}
	case "mkdir":
		err = unix.Mkdir(t.Path, t.Mode)
	case "remove":
		err = os.Remove(t.Path)
	case "link":
		err = unix.Link(t.Path, t.To)
	case "rename":
		err = unix.Rename(t.Path, t.To)
	case "chmod":
		err = unix.Chmod(t.Path, t.Mode)
	case "chown":
		err = unix.Lchown(t.Path, int(t.Mode), int(t.Mode))
	case "getxattr":
		data := make([]byte, 256)
		var n int
		if n, err = unix.Lgetxattr(t.Path, t.To, data); err == nil {
			out.Data = data[:n]
		}
	default:
		panic("unknown task " + t.Op)
	}
	errors.As(err, &out.Errno)
	if err != nil && out.Errno == 0 {
		panic(err)
	}
	return out
}

// performRun runs a program with one argument as the task's ids.
func performRun(t task) outcome {
	c := exec.Command(t.Path, t.To)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(t.UID), Gid: uint32(t.GID)}}
	data, err := c.Output()
	out := outcome{Data: data}
	errors.As(err, &out.Errno)
	if err != nil && out.Errno == 0 {
		panic(err)
	}
	return out
}
