package userdb

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

func newRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(root, path string) (string, error) {
	f, err := RootOpener(root)(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	return string(text), err
}

func TestReadsBelowTheRoot(t *testing.T) {
	root := newRoot(t)
	write(t, filepath.Join(root, "etc/passwd"), "inside")
	if got, err := read(root, "/etc/passwd"); err != nil || got != "inside" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// A link's absolute target and its ".." count from the container's root, as they do inside.
func TestLinksStayInTheRoot(t *testing.T) {
	for name, target := range map[string]string{
		"absolute": "/secret",
		"climbing": "../../../../../../secret",
	} {
		t.Run(name, func(t *testing.T) {
			root := newRoot(t)
			write(t, filepath.Join(filepath.Dir(root), "secret"), "outside")
			write(t, filepath.Join(root, "secret"), "inside")
			if err := os.Symlink(target, filepath.Join(root, "etc/passwd")); err != nil {
				t.Fatal(err)
			}
			if got, err := read(root, "/etc/passwd"); err != nil || got != "inside" {
				t.Fatalf("got %q, %v", got, err)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	root := newRoot(t)
	if _, err := read(root, "/etc/passwd"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing file: %v", err)
	}
	write(t, filepath.Join(root, "file"), "")
	if _, err := read(root, "/file/passwd"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("below a file: %v", err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(root, "etc/group")); err != nil {
		t.Fatal(err)
	}
	if _, err := read(root, "/etc/group"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("dangling link: %v", err)
	}
}

// A FIFO without a writer would block the open for ever.
func TestRefusesFIFOAndDirectory(t *testing.T) {
	root := newRoot(t)
	if err := syscall.Mkfifo(filepath.Join(root, "etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := read(root, "/etc/passwd")
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("FIFO: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("opening a FIFO blocks")
	}
	if _, err := read(root, "/etc"); err == nil {
		t.Fatal("a directory was opened")
	}
}

func TestRefusesEndlessFile(t *testing.T) {
	root := newRoot(t)
	name := filepath.Join(root, "etc/passwd")
	write(t, name, "")
	if err := os.Truncate(name, 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := read(root, "/etc/passwd"); !errors.Is(err, errTooLarge) {
		t.Fatalf("sparse file of 1 TiB: %v", err)
	}
	write(t, name, strings.Repeat("#\n", maxSize/2))
	if _, err := read(root, "/etc/passwd"); err != nil {
		t.Fatalf("file of exactly the limit: %v", err)
	}
}

func TestResolvesUserOfARootfs(t *testing.T) {
	root := newRoot(t)
	write(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n")
	write(t, filepath.Join(root, "etc/group"), "web:x:34:\nlogs:x:4:web\n")
	got, err := ocispec.ResolveUser(RootOpener(root), "web", ocispec.User{})
	if err != nil || got.UID != 33 || got.GID != 34 || len(got.AdditionalGids) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
}
