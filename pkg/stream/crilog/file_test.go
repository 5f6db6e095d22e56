package crilog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

func openFile(t *testing.T, opts Options) *File {
	t.Helper()
	f, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close(context.Background()) })
	return f
}

func write(t *testing.T, w *Writer, text string) {
	t.Helper()
	if err := w.Write(t.Context(), []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestRecordFormat(t *testing.T) {
	dir := t.TempDir()
	f := openFile(t, Options{Dir: dir, Path: "c/0.log", MaxLineBytes: 4})
	at := time.Date(2026, 2, 3, 4, 5, 6, 120, time.FixedZone("", 7200))
	out, errs := f.Writer(Stdout), f.Writer(Stderr)
	out.now = func() time.Time { return at }
	errs.now = out.now
	write(t, out, "hel")
	write(t, errs, "oops\n")
	write(t, out, "lo\n\nend")
	if err := out.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	const want = `2026-02-03T02:05:06.00000012Z stderr F oops
2026-02-03T02:05:06.00000012Z stdout P hell
2026-02-03T02:05:06.00000012Z stdout F o
2026-02-03T02:05:06.00000012Z stdout F 
2026-02-03T02:05:06.00000012Z stdout P end
`
	got, err := os.ReadFile(filepath.Join(dir, "c/0.log"))
	if err != nil || string(got) != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
	for path, mode := range map[string]os.FileMode{"c": os.ModeDir | 0o755, "c/0.log": 0o640} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode() != mode {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
}

func TestOpenAppends(t *testing.T) {
	opts := Options{Dir: t.TempDir(), Path: "0.log"}
	for i := range 3 {
		f := openFile(t, opts)
		write(t, f.Writer(Stdout), fmt.Sprintln("run", i))
		if err := f.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(opts.Dir, opts.Path)
	if got := texts(parseFile(t, path), Stdout); got != "run 0\nrun 1\nrun 2\n" {
		t.Errorf("got %q", got)
	}
}

// A record that a crash tore stays alone on its line.
func TestTornRecordOfACrash(t *testing.T) {
	opts := Options{Dir: t.TempDir(), Path: "0.log"}
	path := filepath.Join(opts.Dir, opts.Path)
	if err := os.WriteFile(path, []byte("2026-01-01T00:00:00Z stdout F whole\n2026-01-01T00:00:00Z stdout F to"), 0o640); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, opts)
	write(t, f.Writer(Stdout), "next\n")
	if got := texts(parseFile(t, path), Stdout); got != "whole\nto\nnext\n" {
		t.Errorf("got %q", got)
	}
}

func TestRefusedPaths(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{
		"", ".", "..", "../x", "a/../../x", "/etc/x", "a/", "a/..", "a\nb", "a\x00b",
	} {
		if f, err := Open(Options{Dir: dir, Path: path}); !errors.Is(err, ErrBadPath) {
			t.Errorf("Open(%q) = %v, %v; want ErrBadPath", path, f, err)
		}
	}
	if _, err := Open(Options{Dir: "relative", Path: "x"}); !errors.Is(err, ErrBadPath) {
		t.Errorf("relative directory: %v", err)
	}
	if _, err := Open(Options{Dir: dir, Path: "x", MaxLineBytes: -1}); err == nil {
		t.Error("negative line limit accepted")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestClosed(t *testing.T) {
	f := openFile(t, Options{Dir: t.TempDir(), Path: "0.log"})
	for range 2 {
		if err := f.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Writer(Stdout).Write(t.Context(), []byte("x\n")); !errors.Is(err, ErrClosed) {
		t.Errorf("Write: %v, want ErrClosed", err)
	}
	if err := f.Reopen(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Reopen: %v, want ErrClosed", err)
	}
}

func TestReopenErrorKeepsTheFile(t *testing.T) {
	opts := Options{Dir: t.TempDir(), Path: "d/0.log"}
	f := openFile(t, opts)
	out := f.Writer(Stdout)
	write(t, out, "one\n")
	rotated := filepath.Join(opts.Dir, "moved")
	if err := os.Rename(filepath.Join(opts.Dir, "d"), rotated); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(opts.Dir, "d"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Reopen(t.Context()); err == nil {
		t.Error("Reopen below a file succeeded")
	}
	write(t, out, "two\n")
	if got := texts(parseFile(t, filepath.Join(rotated, "0.log")), Stdout); got != "one\ntwo\n" {
		t.Errorf("got %q", got)
	}
}

// TestRotationUnderLoad rotates as kubelet does (rename, then ReopenContainerLog)
// while both streams write, and finds each line once, in order.
func TestRotationUnderLoad(t *testing.T) {
	const lines, rotations = 200_000, 40
	opts := Options{Dir: t.TempDir(), Path: "c/0.log", MaxLineBytes: 64}
	f := openFile(t, opts)
	var writers errgroup.Group
	for _, s := range []Stream{Stdout, Stderr} {
		writers.Go(func() error { return writeLines(t.Context(), f.Writer(s), lines/2) })
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		if err := writers.Wait(); err != nil {
			t.Error(err)
		}
	}()
	files := rotateUntil(t, f, written, rotations)
	if len(files) < 5 {
		t.Fatalf("only %d files: the load ended too soon", len(files))
	}
	var recs []record
	for _, path := range files {
		recs = append(recs, parseFile(t, path)...)
	}
	for _, s := range []Stream{Stdout, Stderr} {
		checkLines(t, texts(recs, s), lines/2)
	}
	if !slices.IsSortedFunc(recs, func(a, b record) int { return a.at.Compare(b.at) }) {
		t.Error("records are not in the order of their times")
	}
	if n := f.Dropped(); n != 0 {
		t.Errorf("%d records dropped", n)
	}
}

// line is the i-th line of the load; some exceed the limit of 64 bytes.
func line(i int) string { return fmt.Sprintf("%07d %s\n", i, strings.Repeat("x", i%90)) }

func writeLines(ctx context.Context, w *Writer, n int) error {
	var chunk []byte
	for i := range n {
		chunk = append(chunk, line(i)...)
		// Chunks end anywhere in a line, as reads from a pipe do.
		if size := 1000 + i%3000; len(chunk) > size {
			if err := w.Write(ctx, chunk[:size]); err != nil {
				return err
			}
			chunk = append(chunk[:0], chunk[size:]...)
		}
	}
	return w.Write(ctx, chunk)
}

// rotateUntil rotates until done is closed, and returns all files, oldest first.
func rotateUntil(t *testing.T, f *File, done <-chan struct{}, most int) []string {
	t.Helper()
	var files []string
	for i := range most {
		select {
		case <-done:
			return append(files, f.Path())
		case <-time.After(5 * time.Millisecond):
		}
		rotated := fmt.Sprintf("%s.%03d", f.Path(), i)
		if err := os.Rename(f.Path(), rotated); err != nil {
			t.Fatal(err)
		}
		if err := f.Reopen(t.Context()); err != nil {
			t.Fatal(err)
		}
		files = append(files, rotated)
	}
	<-done
	return append(files, f.Path())
}

func checkLines(t *testing.T, got string, n int) {
	t.Helper()
	i := 0
	for have := range strings.Lines(got) {
		if i >= n || have != line(i) {
			t.Fatalf("line %d is %q", i, have)
		}
		i++
	}
	if i != n {
		t.Fatalf("%d lines, want %d", i, n)
	}
}

func TestConcurrentReopenAndClose(t *testing.T) {
	f := openFile(t, Options{Dir: t.TempDir(), Path: "0.log"})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			switch w := f.Writer(Stdout); i % 3 {
			case 0:
				if err := w.Write(t.Context(), []byte("line\n")); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			case 1:
				if err := f.Reopen(t.Context()); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			case 2:
				if err := f.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	parseFile(t, f.Path())
}

func BenchmarkWrite(b *testing.B) {
	f, err := Open(Options{Dir: b.TempDir(), Path: "0.log"})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close(context.Background()) }()
	w := f.Writer(Stdout)
	chunk := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", 320))
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if err := w.Write(b.Context(), chunk); err != nil {
			b.Fatal(err)
		}
	}
}
