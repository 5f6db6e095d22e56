package fifo

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newSet(t *testing.T, stdin bool) Set {
	t.Helper()
	s, err := NewSet(filepath.Join(t.TempDir(), "io"), "c1", stdin, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(); err != nil {
		t.Fatal(err)
	}
	return s
}

func openReader(t *testing.T, path string) *Reader {
	t.Helper()
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// openShimEnds opens a FIFO as the containerd shim does: for writing and for reading.
func openShimEnds(t *testing.T, path string) (w *os.File, closeBoth func()) {
	t.Helper()
	r, err := open(path, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	w, err = open(path, unix.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	closeBoth = func() { _, _ = w.Close(), r.Close() }
	t.Cleanup(closeBoth)
	return w, closeBoth
}

type result struct {
	data string
	err  error
}

func readAll(r io.Reader) <-chan result {
	got := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(r)
		got <- result{string(data), err}
	}()
	return got
}

func waitResult(t *testing.T, got <-chan result) result {
	t.Helper()
	select {
	case r := <-got:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("read did not end")
		return result{}
	}
}

func stillReading(t *testing.T, got <-chan result) {
	t.Helper()
	select {
	case r := <-got:
		t.Fatalf("read ended early with %q, %v", r.data, r.err)
	case <-time.After(50 * time.Millisecond):
	}
}

func TestNewSet(t *testing.T) {
	for _, tc := range []struct {
		id         string
		stdin, tty bool
		want       Set
		err        error
	}{
		{id: "a", want: Set{Stdout: "/d/a-stdout", Stderr: "/d/a-stderr"}},
		{id: "a", stdin: true, want: Set{Stdin: "/d/a-stdin", Stdout: "/d/a-stdout", Stderr: "/d/a-stderr"}},
		{id: "a", stdin: true, tty: true, want: Set{Stdin: "/d/a-stdin", Stdout: "/d/a-stdout"}},
		{id: "", err: ErrBadID},
		{id: "..", err: ErrBadID},
		{id: "a/b", err: ErrBadID},
		{id: "a\x00", err: ErrBadID},
	} {
		got, err := NewSet("/d", tc.id, tc.stdin, tc.tty)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("NewSet(%q, %v, %v) = %+v, %v; want %+v, %v", tc.id, tc.stdin, tc.tty, got, err, tc.want, tc.err)
		}
	}
}

func TestCreateAndRemoveAreIdempotent(t *testing.T) {
	s := newSet(t, true)
	if err := s.Create(); err != nil {
		t.Errorf("second Create: %v", err)
	}
	for _, path := range s.paths() {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := os.ModeNamedPipe | 0o600; info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
	if info, err := os.Stat(filepath.Dir(s.Stdin)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v; want mode 0700", info.Mode(), err)
	}
	for range 2 {
		if err := s.Remove(); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(s.Stdin)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRefusesWhatIsNoFIFO(t *testing.T) {
	s := newSet(t, false)
	if err := errors.Join(os.Remove(s.Stdout), os.WriteFile(s.Stdout, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(); !errors.Is(err, ErrNotFIFO) {
		t.Errorf("Create over a file: %v, want ErrNotFIFO", err)
	}
	if _, err := OpenReader(s.Stdout); !errors.Is(err, ErrNotFIFO) {
		t.Errorf("OpenReader of a file: %v, want ErrNotFIFO", err)
	}
	link := s.Stdout + "-link"
	if err := os.Symlink(s.Stderr, link); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReader(link); !errors.Is(err, unix.ELOOP) {
		t.Errorf("OpenReader of a symlink: %v, want ELOOP", err)
	}
}

func TestReadWaitsForTheFirstWriter(t *testing.T) {
	s := newSet(t, false)
	got := readAll(openReader(t, s.Stdout))
	stillReading(t, got)
	w, closeBoth := openShimEnds(t, s.Stdout)
	stillReading(t, got)
	if _, err := w.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	stillReading(t, got)
	closeBoth()
	if r := waitResult(t, got); r.data != "hello" || r.err != nil {
		t.Errorf("got %q, %v", r.data, r.err)
	}
}

func TestWriterThatSaysNothingEndsTheStream(t *testing.T) {
	s := newSet(t, false)
	got := readAll(openReader(t, s.Stdout))
	_, closeBoth := openShimEnds(t, s.Stdout)
	closeBoth()
	if r := waitResult(t, got); r.data != "" || r.err != nil {
		t.Errorf("got %q, %v", r.data, r.err)
	}
}

// A reader that is opened while the writer is there already, after a restart, sees
// the end although it never saw the writer come.
func TestLateReaderTakesOver(t *testing.T) {
	s := newSet(t, false)
	first := openReader(t, s.Stdout)
	w, closeBoth := openShimEnds(t, s.Stdout)
	if _, err := w.WriteString("one"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 3)
	if _, err := io.ReadFull(first, buf); err != nil || string(buf) != "one" {
		t.Fatalf("first reader: %q, %v", buf, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("two"); err != nil {
		t.Fatalf("write without a reader: %v", err)
	}
	got := readAll(openReader(t, s.Stdout))
	stillReading(t, got)
	closeBoth()
	if r := waitResult(t, got); r.data != "two" || r.err != nil {
		t.Errorf("second reader got %q, %v", r.data, r.err)
	}
}

func TestFinish(t *testing.T) {
	t.Run("no writer ever", func(t *testing.T) {
		r := openReader(t, newSet(t, false).Stdout)
		got := readAll(r)
		stillReading(t, got)
		r.Finish()
		if res := waitResult(t, got); res.data != "" || res.err != nil {
			t.Errorf("got %q, %v", res.data, res.err)
		}
	})
	t.Run("before Read", func(t *testing.T) {
		r := openReader(t, newSet(t, false).Stdout)
		r.Finish()
		if res := waitResult(t, readAll(r)); res.data != "" || res.err != nil {
			t.Errorf("got %q, %v", res.data, res.err)
		}
	})
	t.Run("writer still there", func(t *testing.T) {
		s := newSet(t, false)
		r := openReader(t, s.Stdout)
		w, closeBoth := openShimEnds(t, s.Stdout)
		got := readAll(r)
		r.Finish()
		stillReading(t, got)
		if _, err := w.WriteString("last words"); err != nil {
			t.Fatal(err)
		}
		stillReading(t, got)
		closeBoth()
		if res := waitResult(t, got); res.data != "last words" || res.err != nil {
			t.Errorf("got %q, %v", res.data, res.err)
		}
	})
}

func TestCloseEndsRead(t *testing.T) {
	r := openReader(t, newSet(t, false).Stdout)
	got := readAll(r)
	stillReading(t, got)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if res := waitResult(t, got); !errors.Is(res.err, os.ErrClosed) {
		t.Errorf("Read after Close: %v, want os.ErrClosed", res.err)
	}
}

// A reader wakes for each piece that another process writes, whatever the timing.
func TestReadFromAProcess(t *testing.T) {
	s := newSet(t, false)
	got := readAll(openReader(t, s.Stdout))
	cmd := exec.Command("sh", "-c", `exec >"$0"; i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done`, s.Stdout)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r := waitResult(t, got); strings.Count(r.data, "\n") != 2000 || !strings.HasSuffix(r.data, "line 1999\n") {
		t.Errorf("got %d lines, %v", strings.Count(r.data, "\n"), r.err)
	}
}

func TestOpenWriterWaitsForAReader(t *testing.T) {
	s := newSet(t, true)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := OpenWriter(ctx, s.Stdin); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("without a reader: %v", err)
	}
	opened := make(chan *os.File, 1)
	go func() {
		w, err := OpenWriter(t.Context(), s.Stdin)
		if err != nil {
			t.Error(err)
		}
		opened <- w
	}()
	r := openReader(t, s.Stdin)
	w := <-opened
	if w == nil {
		return
	}
	if _, err := w.WriteString("in"); err != nil {
		t.Error(err)
	}
	_ = w.Close()
	if res := waitResult(t, readAll(r)); res.data != "in" {
		t.Errorf("got %q, %v", res.data, res.err)
	}
	if _, err := OpenWriter(t.Context(), s.Stdin+"-none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing FIFO: %v", err)
	}
}
