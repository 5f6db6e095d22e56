package stream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/stream/crilog"
)

// waiting is a script that waits for a file before it goes on.
func waiting(t *testing.T, script string) (waits string, proceed func()) {
	t.Helper()
	cue := filepath.Join(t.TempDir(), "cue")
	return `while [ ! -e ` + cue + ` ]; do sleep 0.01; done; ` + script, func() {
		t.Helper()
		if err := os.WriteFile(cue, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func waitAttach(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("Attach did not return")
		return nil
	}
}

// clients counts the attached clients of a stream.
func (o *outlet) attachedClients() int {
	o.clients.mu.Lock()
	defer o.clients.mu.Unlock()
	return len(o.clients.clients)
}

func TestAttachManyClients(t *testing.T) {
	const clients, lines = 50, 2000
	opts := containerOptions(t)
	c := openContainer(t, opts)
	script, proceed := waiting(t, fmt.Sprintf(numbered, lines)+`; echo end >&2`)
	p := startShim(t, c.Paths(), script)
	var all sync.WaitGroup
	outs, errs := make([]output, clients), make([]output, clients)
	for i := range clients {
		all.Go(func() {
			if err := c.Attach(t.Context(), Streams{Stdout: &outs[i], Stderr: &errs[i]}, p); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "all clients", func() bool { return c.stderr.attachedClients() == clients })
	proceed()
	all.Wait()
	for i := range clients {
		if outs[i].String() != wantNumbered(lines) || errs[i].String() != "end\n" || !outs[i].closed {
			t.Errorf("client %d got %d bytes and %q, closed %v", i, len(outs[i].String()), errs[i].String(), outs[i].closed)
		}
	}
	drain(t, c)
	if got := logged(t, crilog.Stdout, logPath(opts)); got != wantNumbered(lines) {
		t.Errorf("log has %d bytes", len(got))
	}
}

// A client that takes nothing is cut off; the log and the other clients get everything.
func TestAttachSlowClient(t *testing.T) {
	const size = 5 << 20
	opts := containerOptions(t)
	opts.AttachStall = 5 * time.Second // far more than a machine that is busy makes of a quick client
	c := openContainer(t, opts)
	script, proceed := waiting(t, fmt.Sprintf(`head -c %d /dev/zero | tr '\0' x`, size))
	p := startShim(t, c.Paths(), script)
	slow := attach(t.Context(), c, Streams{Stdout: newStalled()}, p)
	var out output
	quick := attach(t.Context(), c, Streams{Stdout: &out}, p)
	eventually(t, "both clients", func() bool { return c.stdout.attachedClients() == 2 })
	proceed()
	if err := waitAttach(t, slow); !errors.Is(err, ErrSlowClient) {
		t.Errorf("slow client: %v, want ErrSlowClient", err)
	}
	if err := waitAttach(t, quick); err != nil || len(out.String()) != size {
		t.Errorf("quick client: %d bytes, %v", len(out.String()), err)
	}
	drain(t, c)
	if got := logged(t, crilog.Stdout, logPath(opts)); got != strings.Repeat("x", size) {
		t.Errorf("log has %d bytes, want %d", len(got), size)
	}
}

func TestAttachInput(t *testing.T) {
	opts := containerOptions(t)
	opts.Stdin = true
	c := openContainer(t, opts)
	p := startShim(t, c.Paths(), "cat")
	var log strings.Builder
	for i := range 3 { // one client after the other: the end of input ends the session only
		in, keys := typist(t)
		var out output
		done := attach(t.Context(), c, Streams{Stdin: in, Stdout: &out}, p)
		eventually(t, "client", func() bool { return c.stdout.attachedClients() == 1 })
		text := fmt.Sprintf("hello %d\n", i)
		log.WriteString(text)
		typeIn(t, keys, text)
		eventually(t, "echo", func() bool { return out.String() == text })
		_ = keys.Close()
		if err := waitAttach(t, done); err != nil {
			t.Error(err)
		}
	}
	if !p.running() || p.stdinClosed() != 0 {
		t.Fatalf("stdin was closed %d times", p.stdinClosed())
	}
	if err := errors.Join(c.stdin.close(t.Context()), p.CloseStdin(t.Context())); err != nil {
		t.Fatal(err)
	}
	p.waitExit()
	drain(t, c)
	if got := logged(t, crilog.Stdout, logPath(opts)); got != log.String() {
		t.Errorf("log %q", got)
	}
}

// StdinOnce: the end of the first client's input is the end of the container's, and
// the client stays for the output.
func TestAttachStdinOnce(t *testing.T) {
	opts := containerOptions(t)
	opts.Stdin, opts.StdinOnce = true, true
	c := openContainer(t, opts)
	p := startShim(t, c.Paths(), "wc -c; echo after")
	in, keys := typist(t)
	var out output
	done := attach(t.Context(), c, Streams{Stdin: in, Stdout: &out}, p)
	eventually(t, "client", func() bool { return c.stdout.attachedClients() == 1 })
	typeIn(t, keys, strings.Repeat("x", 300_000)) // more than pipes hold
	_ = keys.Close()
	if err := waitAttach(t, done); err != nil {
		t.Error(err)
	}
	if got := strings.TrimSpace(out.String()); got != "300000\nafter" {
		t.Errorf("output %q", got)
	}
	p.waitExit()
}

func TestAttachStdinOnceClientGoes(t *testing.T) {
	for _, tc := range []struct {
		cause error
		close int
	}{{ErrClientGone, 1}, {ErrReleased, 0}} {
		t.Run(tc.cause.Error(), func(t *testing.T) {
			opts := containerOptions(t)
			opts.Stdin, opts.StdinOnce = true, true
			c := openContainer(t, opts)
			p := startShim(t, c.Paths(), "cat")
			in, keys := typist(t)
			var out output
			ctx, gone := context.WithCancelCause(t.Context())
			done := attach(ctx, c, Streams{Stdin: in, Stdout: &out}, p)
			typeIn(t, keys, "x\n")
			eventually(t, "echo", func() bool { return out.String() == "x\n" })
			gone(tc.cause)
			if err := waitAttach(t, done); errors.Is(err, ErrReleased) == errors.Is(tc.cause, ErrClientGone) {
				t.Errorf("Attach: %v", err)
			}
			if p.stdinClosed() != tc.close {
				t.Errorf("stdin closed %d times, want %d", p.stdinClosed(), tc.close)
			}
		})
	}
}

// A process that does not read its input must not keep a client that leaves.
func TestAttachInputNobodyReads(t *testing.T) {
	opts := containerOptions(t)
	opts.Stdin = true
	c := openContainer(t, opts)
	p := startShim(t, c.Paths(), "exec sleep 60")
	in, keys := typist(t)
	ctx, gone := context.WithCancelCause(t.Context())
	done := attach(ctx, c, Streams{Stdin: in}, p)
	typed := make(chan struct{})
	go func() {
		defer close(typed)
		_, _ = keys.Write(make([]byte, 1<<20))
	}()
	eventually(t, "full pipe", func() bool { return len(c.stdin.turn) == 1 })
	gone(ErrClientGone)
	if err := waitAttach(t, done); err != nil {
		t.Error(err)
	}
	<-typed
	// The next client gets its turn.
	second, keys2 := typist(t)
	ctx, gone = context.WithCancelCause(t.Context())
	done = attach(ctx, c, Streams{Stdin: second}, p)
	typeIn(t, keys2, "x")
	gone(ErrClientGone)
	if err := waitAttach(t, done); err != nil {
		t.Error(err)
	}
}

func TestAttachResize(t *testing.T) {
	opts := containerOptions(t)
	opts.TTY = true
	c := openContainer(t, opts)
	p := startShim(t, c.Paths(), "exec sleep 60")
	sizes := make(chan Size)
	ctx, gone := context.WithCancelCause(t.Context())
	done := attach(ctx, c, Streams{TTY: true, Stdout: &output{}, Resize: sizes}, p)
	for _, s := range []Size{{Width: 80, Height: 25}, {Width: 0, Height: 9}, {Width: 132, Height: 50}} {
		sizes <- s
	}
	eventually(t, "second size", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.sizes) == 2
	})
	if p.sizes[0] != [2]uint32{80, 25} || p.sizes[1] != [2]uint32{132, 50} {
		t.Errorf("sizes %v", p.sizes)
	}
	gone(ErrClientGone)
	if err := waitAttach(t, done); err != nil {
		t.Error(err)
	}
}

func TestAttachAfterTheEnd(t *testing.T) {
	c := openContainer(t, containerOptions(t))
	p := startShim(t, c.Paths(), "echo x")
	p.waitExit()
	drain(t, c)
	var out output
	if err := waitAttach(t, attach(t.Context(), c, Streams{Stdout: &out}, p)); err != nil || !out.closed {
		t.Errorf("Attach: %v, closed %v", err, out.closed)
	}
}

func TestCloseEndsSessions(t *testing.T) {
	opts := containerOptions(t)
	opts.Stdin, opts.StdinOnce = true, true
	c := openContainer(t, opts)
	p := startShim(t, c.Paths(), "cat")
	in, _ := typist(t)
	done := attach(t.Context(), c, Streams{Stdin: in, Stdout: newStalled()}, p)
	eventually(t, "client", func() bool { return c.stdout.attachedClients() == 1 })
	if err := c.Close(within(t, 5*time.Second)); err != nil {
		t.Error(err)
	}
	if err := waitAttach(t, done); !errors.Is(err, ErrReleased) {
		t.Errorf("Attach: %v, want ErrReleased", err)
	}
	if p.stdinClosed() != 0 {
		t.Error("a restart of userns-shim ended the container's input")
	}
	if err := c.Attach(t.Context(), Streams{Stdout: &output{}}, p); !errors.Is(err, ErrReleased) {
		t.Errorf("Attach after Close: %v", err)
	}
}

// A client that is a little late has all output when the container's stdio is closed after its exit.
func TestAttachGetsTheLastOutput(t *testing.T) {
	const lines = 2000
	c := openContainer(t, containerOptions(t))
	script, proceed := waiting(t, fmt.Sprintf(numbered, lines))
	p := startShim(t, c.Paths(), script)
	out := &late{}
	done := attach(t.Context(), c, Streams{Stdout: out}, p)
	eventually(t, "the client", func() bool { return c.stdout.attachedClients() == 1 })
	proceed()
	p.waitExit()
	drain(t, c)
	if err := c.Close(within(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
	if err := waitAttach(t, done); err != nil {
		t.Errorf("Attach: %v", err)
	}
	if out.String() != wantNumbered(lines) {
		t.Errorf("the client has %d bytes, want %d", len(out.String()), len(wantNumbered(lines)))
	}
}

// late is a client that takes its time for the first pieces. How many there are depends on the machine's load.
type late struct {
	output
	pieces int
}

func (l *late) Write(p []byte) (int, error) {
	if l.pieces++; l.pieces <= 5 {
		time.Sleep(200 * time.Millisecond)
	}
	return l.output.Write(p)
}
