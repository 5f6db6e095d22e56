package crilog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// A pod that can write to its log directory must not make userns-shim write elsewhere.
func TestPathsThatAPodPlanted(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	for _, tc := range []struct {
		name  string
		plant func(log string) error
		want  error
	}{
		{"symlink to a file", func(log string) error { return os.Symlink(victim, log) }, ErrNotRegular},
		{"dangling symlink", func(log string) error { return os.Symlink(victim+"2", log) }, ErrNotRegular},
		{"FIFO", func(log string) error { return unix.Mkfifo(log, 0o600) }, ErrNotRegular},
		{"directory", func(log string) error { return os.Mkdir(log, 0o700) }, ErrNotRegular},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "c"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tc.plant(filepath.Join(dir, "c", "0.log")); err != nil {
				t.Fatal(err)
			}
			if f, err := Open(Options{Dir: dir, Path: "c/0.log"}); !errors.Is(err, tc.want) {
				t.Errorf("Open = %v, %v; want %v", f, err, tc.want)
			}
			checkOutside(t, outside)
		})
	}
	t.Run("symlink instead of the container's directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Symlink(outside, filepath.Join(dir, "c")); err != nil {
			t.Fatal(err)
		}
		// Resolved inside dir: an error, or a file inside.
		f, err := Open(Options{Dir: dir, Path: "c/0.log"})
		if err == nil {
			_ = f.Close(t.Context())
		}
		checkOutside(t, outside)
	})
}

func checkOutside(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if e.Name() != "victim" || err != nil || string(data) != "precious" {
			t.Errorf("%s changed: %q, %v", e.Name(), data, err)
		}
	}
}

// The log directory itself may be a symlink: operators move /var/log.
func TestLogDirectoryBehindASymlink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "log")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, Options{Dir: link, Path: "0.log"})
	write(t, f.Writer(Stdout), "x\n")
	if got := texts(parseFile(t, filepath.Join(dir, "0.log")), Stdout); got != "x\n" {
		t.Errorf("got %q", got)
	}
}

func TestDescriptorIsCloseOnExec(t *testing.T) {
	f := openFile(t, Options{Dir: t.TempDir(), Path: "0.log"})
	flags, err := unix.FcntlInt(f.out.(*logFile).file.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

// TestFullFilesystem runs against a real ENOSPC: a tmpfs of 64 KiB fills up, space
// comes back when the rotated file is deleted, and no line is lost or torn.
func TestFullFilesystem(t *testing.T) {
	testkit.RequireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	const lines = 3000
	f := openFile(t, Options{Dir: dir, Path: "0.log", Retry: time.Minute, MaxLineBytes: 64})
	done := make(chan error, 1)
	go func() { done <- writeLines(t.Context(), f.Writer(Stdout), lines) }()

	var log strings.Builder
	rotations := 0
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		case <-time.After(30 * time.Millisecond): // long enough to fill the filesystem
			rotations++
			log.WriteString(rotateAway(t, f))
		}
	}
	log.WriteString(rotateAway(t, f))
	checkLines(t, texts(parse(t, log.String()), Stdout), lines)
	if f.Dropped() != 0 || rotations < 3 {
		t.Errorf("%d records dropped, %d rotations", f.Dropped(), rotations)
	}
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// rotateAway rotates, and returns and deletes the old file.
func rotateAway(t *testing.T, f *File) string {
	t.Helper()
	old := f.Path() + ".old"
	if err := os.Rename(f.Path(), old); err != nil {
		t.Fatal(err)
	}
	if err := f.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(old); err != nil {
		t.Fatal(err)
	}
	return string(data)
}
