package stream

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/pkg/stream/crilog"
	"github.com/userns-shim/userns-shim/pkg/stream/fifo"
)

// shim stands in for the containerd shim, which owns the process: it copies between
// the process's pipes and the FIFOs, both ends of which it holds open, until the pipes
// end. Stdin it holds open for writing until CloseStdin.
type shim struct {
	t       *testing.T
	cmd     *exec.Cmd
	stdin   *os.File // the shim's own write end
	from    *os.File // its read end
	copying sync.WaitGroup
	exited  chan struct{}

	mu      sync.Mutex
	sizes   [][2]uint32
	closed  int // calls of CloseStdin
	closing sync.Once
}

func startShim(t *testing.T, set fifo.Set, script string) *shim {
	t.Helper()
	s := &shim{t: t, cmd: exec.Command("sh", "-c", script), exited: make(chan struct{})}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Stdout = s.output(set.Stdout)
	if set.Stderr != "" {
		s.cmd.Stderr = s.output(set.Stderr)
	}
	if set.Stdin != "" {
		s.cmd.Stdin = s.input(set.Stdin)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []any{s.cmd.Stdout, s.cmd.Stderr, s.cmd.Stdin} {
		if f, ok := f.(*os.File); ok {
			_ = f.Close()
		}
	}
	go func() {
		s.waitUnreaped()
		close(s.exited)
	}()
	t.Cleanup(s.kill)
	return s
}

// waitUnreaped waits for the exit and leaves the zombie, which keeps the process
// group's id from being given to somebody else until kill.
func (s *shim) waitUnreaped() {
	for {
		err := unix.Waitid(unix.P_PID, s.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// kill ends the process with its children, and the copying.
func (s *shim) kill() {
	if err := unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL); err != nil {
		s.t.Error(err)
	}
	<-s.exited
	_ = s.cmd.Wait()
	s.closing.Do(s.closeOwnStdin)
	if s.from != nil {
		_ = s.from.Close()
	}
	s.copying.Wait()
}

func (s *shim) output(path string) *os.File {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	to, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	keep, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.copying.Go(func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{r}, make([]byte, 4096))
		_, _, _ = to.Close(), keep.Close(), r.Close()
	})
	return w
}

func (s *shim) input(path string) *os.File {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	both, err := os.OpenFile(path, os.O_RDWR, 0) // so that neither of the next two waits
	if err != nil {
		s.t.Fatal(err)
	}
	from, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.from = from
	if s.stdin, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
		s.t.Fatal(err)
	}
	_ = both.Close()
	s.copying.Go(func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{from}, make([]byte, 4096))
		_, _ = w.Close(), from.Close()
	})
	return r
}

func (s *shim) closeOwnStdin() {
	if s.stdin != nil {
		_ = s.stdin.Close()
	}
}

func (s *shim) CloseStdin(context.Context) error {
	s.mu.Lock()
	s.closed++
	s.mu.Unlock()
	s.closing.Do(s.closeOwnStdin)
	return nil
}

func (s *shim) Resize(_ context.Context, width, height uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes = append(s.sizes, [2]uint32{width, height})
	return nil
}

func (s *shim) stdinClosed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *shim) waitExit() {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		s.t.Fatal("process did not exit")
	}
}

func (s *shim) running() bool {
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// within bounds a step of a test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never saw: %s", what)
		}
	}
}

func openContainer(t *testing.T, opts Options) *ContainerIO {
	t.Helper()
	c, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(within(t, 10*time.Second)); err != nil {
			t.Error(err)
		}
	})
	return c
}

func containerOptions(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	return Options{
		ID:  "c1",
		Dir: filepath.Join(dir, "io"),
		Log: crilog.Options{Dir: filepath.Join(dir, "log"), Path: "app/0.log"},
	}
}

func drain(t *testing.T, c interface{ Drain(context.Context) error }) {
	t.Helper()
	if err := c.Drain(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
}

// logged joins the texts of one stream in log files, as kubelet does.
func logged(t *testing.T, stream crilog.Stream, paths ...string) string {
	t.Helper()
	var b strings.Builder
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.SplitN(line, " ", 4)
			if len(fields) != 4 {
				t.Fatalf("line %q of %s is no record", line, path)
			}
			if fields[1] != string(stream) {
				continue
			}
			b.WriteString(strings.TrimSuffix(fields[3], "\n"))
			if fields[2] == "F" {
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}

func logPath(opts Options) string { return filepath.Join(opts.Log.Dir, opts.Log.Path) }
