package selftest

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/userns-shim/userns-shim/internal/selftest/inside"
)

func TestFindProcess(t *testing.T) {
	pid, err := ProcHost{}.FindProcess(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	// The parent process, the go command or a wrapper of it, may have the same argument.
	if pid != os.Getpid() && pid != os.Getppid() {
		t.Errorf("FindProcess finds %d, want this process, %d, or its parent", pid, os.Getpid())
	}
	// Part of an argument does not do.
	if pid, err := (ProcHost{}).FindProcess(os.Args[0][1:]); !errors.Is(err, ErrNotSeen) {
		t.Errorf("FindProcess of a part of an argument = %d, %v; want ErrNotSeen", pid, err)
	}
}

func TestOwnerThroughRoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.Symlink("/nowhere", path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	want := inside.Owner{UID: st.Uid, GID: st.Gid}
	if got, err := (ProcHost{}).Owner(os.Getpid(), path); got != want || err != nil {
		t.Errorf("Owner = %v, %v; want that of the link itself, %v", got, err, want)
	}
	if _, err := (ProcHost{}).Owner(os.Getpid(), path+".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Owner of a missing file = %v, want os.ErrNotExist", err)
	}
}

// TestFindLayerFile knows where runtimes keep layers, relative to the directory that they tell.
func TestFindLayerFile(t *testing.T) {
	for name, layer := range map[string]string{
		"containerd":         "images/snapshots/4/fs",
		"containers-storage": "overlay/0123abcd/diff",
		"storage's own root": "images/overlay/0123abcd/diff",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, layer, "bin", "busybox")
			other := filepath.Join(dir, filepath.Dir(filepath.Dir(layer)), "other", filepath.Base(layer), "bin", "busybox")
			for _, p := range []string{path, other, filepath.Join(dir, "images", "x")} {
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			inode, owner, err := lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			images := filepath.Join(dir, "images")
			got, err := ProcHost{}.FindLayerFile(images, inside.Witness{Path: "/bin/busybox", Inode: inode})
			if err != nil {
				t.Fatal(err)
			}
			if gotInode, _, err := lstat(got.Path); gotInode != inode || got.Owner != owner || err != nil {
				t.Errorf("FindLayerFile = %+v, want %s of %s", got, path, owner)
			}
			_, err = ProcHost{}.FindLayerFile(images, inside.Witness{Path: "/bin/busybox", Inode: inode + 1<<40})
			if !errors.Is(err, ErrNotSeen) {
				t.Errorf("FindLayerFile of another inode = %v, want ErrNotSeen", err)
			}
		})
	}
}
