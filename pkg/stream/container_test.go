package stream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/stream/crilog"
	"github.com/userns-shim/userns-shim/pkg/stream/fifo"
)

func TestContainerLog(t *testing.T) {
	opts := containerOptions(t)
	c := openContainer(t, opts)
	p := startShim(t, c.Paths(), `echo out 1; echo err 1 >&2; echo out 2; printf unfinished >&2; exit 3`)
	p.waitExit()
	drain(t, c)
	<-c.Done()
	if got := logged(t, crilog.Stdout, logPath(opts)); got != "out 1\nout 2\n" {
		t.Errorf("stdout: %q", got)
	}
	if got := logged(t, crilog.Stderr, logPath(opts)); got != "err 1\nunfinished" {
		t.Errorf("stderr: %q", got)
	}
}

func TestTerminalHasOneStream(t *testing.T) {
	opts := containerOptions(t)
	opts.TTY = true
	c := openContainer(t, opts)
	if c.Paths().Stderr != "" {
		t.Fatalf("stderr of a terminal: %q", c.Paths().Stderr)
	}
	p := startShim(t, c.Paths(), `printf 'a\r\nb\r\n'`)
	p.waitExit()
	drain(t, c)
	if got := logged(t, crilog.Stdout, logPath(opts)); got != "a\nb\n" {
		t.Errorf("stdout: %q", got)
	}
}

func TestWithoutLogPathOutputIsThrownAway(t *testing.T) {
	opts := containerOptions(t)
	opts.Log = crilog.Options{}
	c := openContainer(t, opts)
	p := startShim(t, c.Paths(), `head -c 1000000 /dev/zero`)
	p.waitExit()
	drain(t, c)
	if err := c.Reopen(t.Context()); err != nil {
		t.Errorf("Reopen: %v", err)
	}
}

func TestOpenRefusesAndLeavesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Options)
		want   error
	}{
		"log path":  {func(o *Options) { o.Log.Path = "../x" }, crilog.ErrBadPath},
		"id":        {func(o *Options) { o.ID = "../x" }, fifo.ErrBadID},
		"FIFO path": {func(o *Options) { o.Dir = "/dev/null/x" }, nil},
	} {
		opts := containerOptions(t)
		tc.change(&opts)
		if c, err := Open(t.Context(), opts); err == nil || (tc.want != nil && !errors.Is(err, tc.want)) {
			t.Errorf("%s: Open = %v, %v; want %v", name, c, err, tc.want)
		}
		if left, _ := os.ReadDir(filepath.Dir(opts.Log.Dir)); name != "FIFO path" && len(left) != 0 {
			t.Errorf("%s: left behind %v", name, left)
		}
	}
}

const numbered = `i=0; while [ $i -lt %d ]; do echo "line $i"; i=$((i+1)); done`

func wantNumbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// TestRotation runs the whole way from a process to rotated files.
func TestRotation(t *testing.T) {
	const lines = 50_000
	opts := containerOptions(t)
	c := openContainer(t, opts)
	waits, proceed := waiting(t, "exit")
	p := startShim(t, c.Paths(), fmt.Sprintf(numbered, lines)+"; "+waits)
	var files []string
	for i := 0; p.running(); i++ {
		if i == 3 { // however fast the process was
			proceed()
		}
		time.Sleep(5 * time.Millisecond)
		old := fmt.Sprintf("%s.%d", logPath(opts), i)
		if err := os.Rename(logPath(opts), old); err != nil {
			t.Fatal(err)
		}
		if err := c.Reopen(t.Context()); err != nil {
			t.Fatal(err)
		}
		files = append(files, old)
	}
	drain(t, c)
	if got := logged(t, crilog.Stdout, append(files, logPath(opts))...); got != wantNumbered(lines) {
		t.Errorf("%d bytes in %d files are not the %d lines that were written", len(got), len(files), lines)
	}
}

// TestRestart closes and opens the stdio again while the process writes, as a restart
// of userns-shim does. The shim keeps the FIFO, and no line is lost. (It lets go when
// the process exits; what the FIFO holds is gone if no reader has it open at that time.)
func TestRestart(t *testing.T) {
	const lines = 50_000
	opts := containerOptions(t)
	c, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	written := filepath.Join(t.TempDir(), "written")
	p := startShim(t, c.Paths(), fmt.Sprintf(numbered, lines)+`; echo >`+written+`; while [ -e `+written+` ]; do sleep 0.01; done`)
	restarts := 0
	for ; restarts < 3 || !exists(written); restarts++ {
		time.Sleep(3 * time.Millisecond)
		if err := c.Close(within(t, 5*time.Second)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Millisecond)
		if c, err = Open(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(written); err != nil {
		t.Fatal(err)
	}
	p.waitExit()
	drain(t, c)
	if err := c.Close(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := logged(t, crilog.Stdout, logPath(opts)); got != wantNumbered(lines) {
		t.Errorf("%d bytes after %d restarts are not the %d lines that were written", len(got), restarts, lines)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A container that exited while userns-shim was down leaves FIFOs without a writer:
// Drain must not wait for one.
func TestDrainWithoutAWriter(t *testing.T) {
	c := openContainer(t, containerOptions(t))
	drain(t, c) // ErrNotDrained, if it waited
}

// A process that the container left in the background holds the output open.
func TestDrainIsBounded(t *testing.T) {
	opts := containerOptions(t)
	c := openContainer(t, opts)
	cue := filepath.Join(t.TempDir(), "go")
	p := startShim(t, c.Paths(), `echo before; { while [ ! -e `+cue+` ]; do sleep 0.01; done; echo after; } & exit 0`)
	p.waitExit()
	if err := c.Drain(within(t, 100*time.Millisecond)); !errors.Is(err, ErrNotDrained) {
		t.Fatalf("Drain: %v, want ErrNotDrained", err)
	}
	if err := os.WriteFile(cue, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	drain(t, c)
	if got := logged(t, crilog.Stdout, logPath(opts)); got != "before\nafter\n" {
		t.Errorf("stdout: %q", got)
	}
}

func TestRemoveFIFOs(t *testing.T) {
	opts := containerOptions(t)
	opts.Stdin = true
	c := openContainer(t, opts)
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(opts.Dir); len(left) != 3 {
		t.Errorf("Close left %v, want the three FIFOs", left)
	}
	// An exec's, as a daemon that is killed leaves them.
	exec, err := fifo.NewSet(opts.Dir, "an-exec", false, false)
	if err := errors.Join(err, exec.Create()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := RemoveFIFOs(opts.Dir); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(opts.Dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
