package crilog

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// disk is a target with a limited size, which may also be stuck. Files made by open
// share its space until they are freed.
type disk struct {
	mu    sync.Mutex
	free  int
	stuck chan struct{} // not nil: Write waits until it is closed
	files []*diskFile
}

type diskFile struct {
	disk   *disk
	data   []byte
	closed bool
}

func (d *disk) open() (target, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &diskFile{disk: d}
	d.files = append(d.files, f)
	return f, nil
}

func (d *disk) grow(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free += n
}

func (d *disk) content(i int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return string(d.files[i].data)
}

func (f *diskFile) Write(p []byte) (int, error) {
	f.disk.mu.Lock()
	stuck := f.disk.stuck
	f.disk.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.closed {
		return 0, errors.New("write after close")
	}
	n := min(len(p), f.disk.free)
	f.data = append(f.data, p[:n]...)
	f.disk.free -= n
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (f *diskFile) Cut(n int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.data = f.data[:len(f.data)-int(n)]
	f.disk.free += int(n)
	return nil
}

func (f *diskFile) Close() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.closed = true
	return nil
}

func onDisk(t *testing.T, d *disk, retry time.Duration) *File {
	t.Helper()
	f, err := newFile(Options{Dir: "/log", Path: "c", MaxLineBytes: 100, Retry: retry}, d.open)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fixed stamps all records alike, so that their size is known.
func fixed(w *Writer) *Writer {
	w.now = func() time.Time { return time.Unix(0, 123456789) }
	return w
}

const (
	sixLines    = "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\n"
	recordBytes = len("1970-01-01T00:00:00.123456789Z stdout F line 0\n")
)

func TestDiskFullForAWhileLosesNothing(t *testing.T) {
	d := &disk{free: recordBytes*2 + 11}
	f := onDisk(t, d, time.Minute)
	go func() {
		for range 20 {
			time.Sleep(5 * time.Millisecond)
			d.grow(recordBytes / 3)
		}
	}()
	write(t, fixed(f.Writer(Stdout)), sixLines)
	if got := texts(parse(t, d.content(0)), Stdout); got != sixLines {
		t.Errorf("got %q", got)
	}
	if f.Dropped() != 0 {
		t.Errorf("%d records dropped", f.Dropped())
	}
}

// kubelet's rotation may be what makes space: Reopen must not wait for the write that
// waits for space, and the torn record moves whole into the new file.
func TestReopenWhileTheDiskIsFull(t *testing.T) {
	d := &disk{free: recordBytes*2 + 11}
	f := onDisk(t, d, time.Minute)
	done := make(chan error, 1)
	go func() { done <- fixed(f.Writer(Stdout)).Write(t.Context(), []byte(sixLines)) }()
	for len(d.content(0)) < recordBytes*2+11 {
		time.Sleep(time.Millisecond)
	}
	if err := f.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.grow(recordBytes * 10)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	first, second := texts(parse(t, d.content(0)), Stdout), texts(parse(t, d.content(1)), Stdout)
	if first != sixLines[:14] || second != sixLines[14:] {
		t.Errorf("old file %q, new file %q", first, second)
	}
	if !d.files[0].closed {
		t.Error("old file is still open")
	}
}

func TestDiskFullForLongDropsWholeRecords(t *testing.T) {
	synctest.Test(t, diskFullForLong)
}

func diskFullForLong(t *testing.T) {
	d := &disk{free: recordBytes*2 + 11}
	f := onDisk(t, d, 30*time.Millisecond)
	out := fixed(f.Writer(Stdout))
	start := time.Now()
	write(t, out, sixLines)
	if waited := time.Since(start); waited < 30*time.Millisecond || waited > time.Minute {
		t.Errorf("dropped after %v", waited)
	}
	if f.Dropped() != 4 {
		t.Errorf("%d records dropped, want 4", f.Dropped())
	}
	start = time.Now()
	write(t, out, sixLines) // does not wait again
	if waited := time.Since(start); waited != 0 {
		t.Errorf("waited %v although records are being dropped", waited)
	}
	d.grow(recordBytes * 100)
	write(t, out, "back\n")
	if got := texts(parse(t, d.content(0)), Stdout); got != "line 0\nline 1\nback\n" {
		t.Errorf("got %q", got)
	}
	if f.Dropped() != 10 {
		t.Errorf("%d records dropped, want 10", f.Dropped())
	}
}

func TestCloseEndsTheWaitForSpace(t *testing.T) {
	d := &disk{free: 10}
	f := onDisk(t, d, time.Hour)
	done := make(chan error, 1)
	go func() { done <- fixed(f.Writer(Stdout)).Write(t.Context(), []byte(sixLines)) }()
	for len(d.content(0)) < 10 {
		time.Sleep(time.Millisecond)
	}
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Write: %v", err)
	}
	if d.content(0) != "" || f.Dropped() != 6 {
		t.Errorf("file %q, %d dropped", d.content(0), f.Dropped())
	}
}

// A disk that hangs in write(2) holds back its container only: Reopen and Close keep
// their bounds, and nothing is lost when the disk comes back.
func TestStuckDisk(t *testing.T) {
	release := make(chan struct{})
	d := &disk{free: 1 << 20, stuck: release}
	f := onDisk(t, d, time.Millisecond)
	done := make(chan error, 1)
	go func() { done <- fixed(f.Writer(Stdout)).Write(t.Context(), []byte(sixLines)) }()
	for len(f.turn) == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := f.Reopen(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Reopen: %v", err)
	}
	if err := f.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	d.mu.Lock()
	d.stuck = nil
	d.mu.Unlock()
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := d.content(0); strings.Count(got, "\n") != 6 || f.Dropped() != 0 {
		t.Errorf("got %q, %d dropped", got, f.Dropped())
	}
}
