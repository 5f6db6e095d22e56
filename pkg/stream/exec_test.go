package stream

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func openExec(t *testing.T, s Streams) *ExecIO {
	t.Helper()
	dir := t.TempDir()
	e, err := OpenExec(t.Context(), ExecOptions{Dir: dir, ID: "e1", Streams: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(within(t, 10*time.Second)); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return e
}

func connect(ctx context.Context, t *testing.T, e *ExecIO, p Process) {
	t.Helper()
	if err := e.Connect(ctx, p); err != nil {
		t.Fatal(err)
	}
}

func TestExec(t *testing.T) {
	in, keys := typist(t)
	var out, errs output
	e := openExec(t, Streams{Stdin: in, Stdout: &out, Stderr: &errs})
	p := startShim(t, e.Paths(), `echo started >&2; cat; echo done >&2`)
	connect(t.Context(), t, e, p)
	typeIn(t, keys, "hello\n")
	eventually(t, "echo", func() bool { return out.String() == "hello\n" })
	if !p.running() {
		t.Error("stdin ended early")
	}
	_ = keys.Close() // half-close
	p.waitExit()
	drain(t, e)
	if out.String() != "hello\n" || errs.String() != "started\ndone\n" {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
}

func TestExecMovesMuchData(t *testing.T) {
	var out output
	text := strings.Repeat("0123456789abcde\n", 1<<17) // 2 MiB
	e := openExec(t, Streams{Stdin: io.NopCloser(strings.NewReader(text)), Stdout: &out})
	p := startShim(t, e.Paths(), "cat")
	connect(t.Context(), t, e, p)
	p.waitExit()
	drain(t, e)
	if out.String() != text {
		t.Errorf("%d bytes came back, want %d", len(out.String()), len(text))
	}
}

// Without a client for a stream, the process still does not block on it.
func TestExecOutputNobodyWants(t *testing.T) {
	e := openExec(t, Streams{})
	p := startShim(t, e.Paths(), "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2")
	connect(t.Context(), t, e, p)
	p.waitExit()
	drain(t, e)
}

func TestExecClientGoes(t *testing.T) {
	in, keys := typist(t)
	out := &output{}
	e := openExec(t, Streams{Stdin: in, Stdout: out})
	p := startShim(t, e.Paths(), `cat >/dev/null; head -c 1000000 /dev/zero`)
	ctx, gone := context.WithCancelCause(t.Context())
	connect(ctx, t, e, p)
	typeIn(t, keys, "x")
	_ = out.Close() // as Server does when the connection breaks
	_ = in.Close()
	gone(ErrClientGone)
	p.waitExit() // its stdin ended and its output was thrown away
	drain(t, e)
}

// A terminal has no half-close; it hangs up when its client goes.
func TestExecTerminal(t *testing.T) {
	in, keys := typist(t)
	var out output
	sizes := make(chan Size, 1)
	e := openExec(t, Streams{Stdin: in, Stdout: &out, TTY: true, Resize: sizes})
	p := startShim(t, e.Paths(), "cat")
	ctx, gone := context.WithCancelCause(t.Context())
	connect(ctx, t, e, p)
	sizes <- Size{Width: 80, Height: 25}
	typeIn(t, keys, "ls\n")
	_ = keys.Close()
	eventually(t, "echo and size", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return out.String() == "ls\n" && len(p.sizes) == 1
	})
	if p.stdinClosed() != 0 {
		t.Error("the end of input hung the terminal up")
	}
	gone(ErrClientGone)
	eventually(t, "hang-up", func() bool { return p.stdinClosed() == 1 })
	p.waitExit()
	drain(t, e)
}

// userns-shim that stops does not end the input of what runs on.
func TestExecReleased(t *testing.T) {
	in, _ := typist(t)
	e := openExec(t, Streams{Stdin: in, Stdout: newStalled()})
	p := startShim(t, e.Paths(), "echo x; exec sleep 60")
	ctx, stop := context.WithCancelCause(t.Context())
	connect(ctx, t, e, p)
	stop(ErrReleased)
	if err := e.Close(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	if p.stdinClosed() != 0 {
		t.Error("stdin was closed")
	}
}

func TestExecDrainIsBoundedByAStalledClient(t *testing.T) {
	e := openExec(t, Streams{Stdout: newStalled()})
	p := startShim(t, e.Paths(), "echo x")
	connect(t.Context(), t, e, p)
	p.waitExit()
	if err := e.Drain(within(t, 50*time.Millisecond)); !errors.Is(err, ErrNotDrained) {
		t.Errorf("Drain: %v, want ErrNotDrained", err)
	}
}

func openCapture(t *testing.T, limit int) *Capture {
	t.Helper()
	dir := t.TempDir()
	c, err := OpenCapture(t.Context(), CaptureOptions{Dir: dir, ID: "e1", Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(within(t, 10*time.Second)); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return c
}

func TestCapture(t *testing.T) {
	for _, tc := range []struct {
		script    string
		limit     int
		out, errs int
		truncated bool
	}{
		{"echo hello; echo oops >&2", 0, 6, 5, false},
		{"exit 1", 0, 0, 0, false},
		{"head -c 1000 /dev/zero; head -c 1001 /dev/zero >&2", 1000, 1000, 1000, true},
		{"head -c 1000 /dev/zero", 1000, 1000, 0, false},
		{"head -c 40000000 /dev/zero", 0, DefaultCaptureLimit, 0, true},
	} {
		c := openCapture(t, tc.limit)
		p := startShim(t, c.Paths(), tc.script)
		p.waitExit()
		drain(t, c)
		got := c.Output()
		if len(got.Stdout) != tc.out || len(got.Stderr) != tc.errs || got.Truncated != tc.truncated {
			t.Errorf("%s: %d and %d bytes, truncated %v", tc.script, len(got.Stdout), len(got.Stderr), got.Truncated)
		}
	}
}

// A background child that holds the output must not hang ExecSync.
func TestCaptureBackgroundChild(t *testing.T) {
	c := openCapture(t, 0)
	script, proceed := waiting(t, "echo late")
	p := startShim(t, c.Paths(), "echo early; { "+script+"; } & exit 0")
	p.waitExit()
	if err := c.Drain(within(t, 100*time.Millisecond)); !errors.Is(err, ErrNotDrained) {
		t.Errorf("Drain: %v, want ErrNotDrained", err)
	}
	first := c.Output()
	proceed()
	drain(t, c)
	if string(first.Stdout) != "early\n" || string(c.Output().Stdout) != "early\nlate\n" {
		t.Errorf("output %q, then %q", first.Stdout, c.Output().Stdout)
	}
}
