package ns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// TestChildPerformsCalls runs calls without any namespace: results, the first failure, and that
// nothing after it is performed.
func TestChildPerformsCalls(t *testing.T) {
	onThrowawayThread(func() {
		c, err := startChild()
		if err != nil {
			t.Error(err)
			return
		}
		calls := []call{
			{nr: unix.SYS_GETPID},
			{nr: unix.SYS_GETPPID},
			{nr: unix.SYS_CLOSE, args: [6]uintptr{^uintptr(0)}},
			{nr: unix.SYS_GETPID},
		}
		for range 2 { // the child serves until it is stopped
			done, errno, err := c.run(t.Context(), calls)
			if done != 2 || errno != unix.EBADF || err != nil {
				t.Errorf("run = %d, %v, %v, want 2, %v", done, errno, err, unix.EBADF)
			}
			if calls[0].ret != uintptr(c.pid) || calls[1].ret != uintptr(os.Getpid()) || calls[3].ret != 0 {
				t.Errorf("results: %+v, want %d, %d, -, 0", calls, c.pid, os.Getpid())
			}
		}
		if err := c.stop(); err != nil {
			t.Error(err)
		}
		if err := unix.Kill(c.pid, 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("the child after stop: %v, want %v", err, unix.ESRCH)
		}
	})
}

// TestChildPassesArguments: the kernel looks at the sixth argument of mmap, having taken the others.
func TestChildPassesArguments(t *testing.T) {
	onThrowawayThread(func() {
		c, err := startChild()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if err := c.stop(); err != nil {
				t.Error(err)
			}
		}()
		_, errno, err := c.run(t.Context(), []call{{
			nr: unix.SYS_MMAP,
			args: [6]uintptr{
				0, uintptr(os.Getpagesize()), unix.PROT_READ, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, ^uintptr(0), 1, // offset 1: EINVAL
			},
		}})
		if errno != unix.EINVAL || err != nil {
			t.Errorf("mmap with an offset that is no page's: %v, %v, want %v", errno, err, unix.EINVAL)
		}
	})
}

// TestChildCancelled: a child in a call that does not return is given up when the context ends.
func TestChildCancelled(t *testing.T) {
	onThrowawayThread(func() {
		c, err := startChild()
		if err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		forever := []call{{nr: unix.SYS_PPOLL}}
		if _, _, err := c.run(ctx, forever); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("run = %v, want %v", err, context.DeadlineExceeded)
		}
		if err := c.stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestChildDies kills the child under its parent.
func TestChildDies(t *testing.T) {
	onThrowawayThread(func() {
		c, err := startChild()
		if err != nil {
			t.Error(err)
			return
		}
		if err := unix.Kill(c.pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
		if _, _, err := c.run(t.Context(), []call{{nr: unix.SYS_GETPID}}); err == nil {
			t.Error("run with a dead child succeeded")
		}
		if err := c.stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestChildDiesWithParent kills a process that has set up a child, and one that has only cloned it.
func TestChildDiesWithParent(t *testing.T) {
	testkit.RequireRoot(t)
	for _, role := range []string{"parent", "young parent"} {
		t.Run(role, func(t *testing.T) { killParent(t, role) })
	}
}

func killParent(t *testing.T, role string) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+role)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if killErr := cmd.Process.Kill(); err != nil || killErr != nil {
		t.Error(err, killErr)
	}
	_ = cmd.Wait()
	proc := "/proc/" + strings.TrimSpace(line)
	for range 2000 {
		stat, err := os.ReadFile(proc + "/stat")
		// As an orphan it is reaped by an init, in its own time.
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("child %s outlives its parent", proc)
}

// playParent is that process.
func playParent(young bool) (err error) {
	onThrowawayThread(func() {
		var c *child
		if c, err = startChild(); err != nil {
			return
		}
		if !young {
			err = c.setUp(context.Background(), Request{User: &IDMap{HostID: 65536, Length: 65536}, IPC: true})
		}
		if err != nil {
			return
		}
		fmt.Fprintln(os.Stdout, c.pid)
		time.Sleep(time.Hour) // until killed
	})
	return err
}

// TestCreateUnderLoad makes namespaces while the collector runs, the profiler sends signals, and
// other programs are started: what a clone that shares memory has to live with.
func TestCreateUnderLoad(t *testing.T) {
	testkit.RequireRoot(t)
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Fatal(err)
	}
	defer pprof.StopCPUProfile()
	var load, work sync.WaitGroup
	stop := make(chan struct{})
	background := func(fn func()) {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					fn()
				}
			}
		})
	}
	background(func() {
		garbage := make([][]byte, 2000)
		for i := range garbage {
			garbage[i] = make([]byte, 4096)
		}
		runtime.GC()
	})
	background(func() {
		if err := exec.Command("true").Run(); err != nil {
			t.Error(err)
		}
	})
	for range 4 {
		req := newRequest(t)
		work.Go(func() {
			for range 10 {
				pins, err := Create(t.Context(), req)
				if err == nil {
					err = Check(pins, req.User)
				}
				if err := errors.Join(err, Remove(t.Context(), req.Dir, req.NetPath)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	close(stop)
	load.Wait()
}

// TestThrowawayThread holds that such a thread is never the first, and is gone afterwards.
func TestThrowawayThread(t *testing.T) {
	for range 20 {
		var tid int
		onThrowawayThread(func() { tid = unix.Gettid() })
		if tid == os.Getpid() {
			t.Fatal("ran on the first thread")
		}
		task := filepath.Join("/proc/self/task", fmt.Sprint(tid))
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(task); errors.Is(err, os.ErrNotExist) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("thread %d lives on", tid)
			}
		}
	}
}
