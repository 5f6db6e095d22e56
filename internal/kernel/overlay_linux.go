package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// layerNames are the two layers of a probe: overlay wants two where there is no upper directory.
var layerNames = []string{"a", "b"}

// probeDetachedLayers mounts an overlay, nowhere, over two directories of a tmpfs that is mounted nowhere.
// The idmap does not matter here, so none is made.
func probeDetachedLayers() error {
	tree, err := detachedTmpfs()
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open overlay: %w", err)
	}
	defer unix.Close(fs)
	for _, name := range layerNames {
		if err := addLayer(fs, tree, name); err != nil {
			return err
		}
	}
	overlay, err := mountDetached(fs)
	if err != nil {
		return err
	}
	return unix.Close(overlay)
}

// addLayer makes a directory in tree and gives it to an overlay as its next lower layer.
func addLayer(fs, tree int, name string) error {
	if err := unix.Mkdirat(tree, name, 0o700); err != nil {
		return fmt.Errorf("make layer: %w", err)
	}
	layer, err := unix.Openat(tree, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	defer unix.Close(layer)
	if err := unix.FsconfigSetFd(fs, "lowerdir+", layer); err != nil {
		return fmt.Errorf("add layer by descriptor: %w", err)
	}
	return nil
}

// probeIDMappedOverlay mounts an overlay over two idmapped layers in dir. It attaches them in a mount
// namespace of its own and so asks nothing of the kernel but what is asked about.
func (p *Prober) probeIDMappedOverlay(dir string) (err error) {
	removeLeftScratch(dir)
	scratch, err := os.MkdirTemp(dir, scratchPrefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(scratch)) }()
	for _, name := range layerNames {
		layer := filepath.Join(scratch, name)
		if err := os.Mkdir(layer, 0o700); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.Remove(layer)) }()
	}
	layers, err := p.idmappedClone(scratch)
	if err != nil {
		return err
	}
	defer unix.Close(layers)
	stage, err := detachedTmpfs()
	if err != nil {
		return err
	}
	defer unix.Close(stage)
	return onThread(func() error { return mountStaged(stage, layers) })
}

const scratchPrefix = ".kernel-probe-"

// scratchAge is far longer than a probe, which takes milliseconds, needs its directory.
const scratchAge = time.Minute

// removeLeftScratch removes what a probe left that was killed. What cannot be removed is no reason not to probe.
func removeLeftScratch(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, scratchPrefix+"*")) // the one error is a bad pattern: a directory with a bracket
	for _, scratch := range left {
		info, err := os.Lstat(scratch)
		if err != nil || time.Since(info.ModTime()) < scratchAge {
			continue // in use, or somebody else removed it
		}
		for _, name := range layerNames {
			_ = os.Remove(filepath.Join(scratch, name))
		}
		_ = os.Remove(scratch)
	}
}

// onThread runs work on a thread of its own, which ends with the work, and its mount namespace with it. It is
// never the main thread: the runtime cannot end that one, and /proc/<pid> shows its namespaces.
func onThread(work func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(work) // on another thread, because this one is locked meanwhile
			runtime.UnlockOSThread()
			return
		}
		done <- work()
	}()
	return <-done
}

// mountStaged attaches stage, and layers in it, in a new mount namespace and mounts the overlay there.
func mountStaged(stage, layers int) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.MoveMount(stage, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach tmpfs: %w", err)
	}
	if err := unix.Fchdir(stage); err != nil {
		return fmt.Errorf("enter tmpfs: %w", err)
	}
	for _, name := range []string{"layers", "overlay"} {
		if err := unix.Mkdir(name, 0o700); err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
	}
	if err := unix.MoveMount(layers, "", unix.AT_FDCWD, "layers", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach layers: %w", err)
	}
	if err := unix.Mount("overlay", "overlay", "overlay", 0, "lowerdir=layers/a:layers/b"); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}
