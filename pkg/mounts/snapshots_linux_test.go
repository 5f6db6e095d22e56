package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/kernel"
	"github.com/userns-shim/userns-shim/internal/testkit"
)

// eachWay runs a test once for every way that this kernel has.
func eachWay(t *testing.T, test func(t *testing.T, m *Mounter)) {
	t.Helper()
	testkit.RequireRoot(t)
	for _, way := range []Way{WayDetached, WayStaged} {
		t.Run(way.String(), func(t *testing.T) {
			requireWay(t, way)
			test(t, newMounter(t, way))
		})
	}
}

// requireWay skips on a kernel that lacks the way. That a kernel which is new enough has it is held by the
// tests of internal/kernel.
func requireWay(t testing.TB, way Way) {
	t.Helper()
	if way != WayDetached {
		return
	}
	p, err := kernel.New(kernel.Options{UserNS: func() (*os.File, error) { return nil, errors.ErrUnsupported }})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.OverlayDetachedLayers(); errors.Is(err, kernel.ErrNotSupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// newMounter makes a Mounter and checks at the end that it holds nothing any more.
func newMounter(t testing.TB, way Way) *Mounter {
	t.Helper()
	m, err := New(Options{Way: way})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.checkStage(t)
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if n := m.Stats().Clones; n != 0 {
			t.Errorf("%d clones left after Close", n)
		}
	})
	return m
}

// checkStage checks that the stage holds the pods' clones and nothing else.
func (m *Mounter) checkStage(t testing.TB) {
	t.Helper()
	if !m.stage.ready || m.stage.closed {
		return
	}
	var names []string
	err := m.stage.run(func() error {
		entries, err := os.ReadDir(".")
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if len(names) != m.Stats().Clones {
		t.Errorf("%d clones, and in the stage %v", m.Stats().Clones, names)
	}
}

// snapshots is a directory laid out as containerd's overlay snapshotter does it.
type snapshots struct {
	root string
	last int
}

func newSnapshots(t testing.TB) *snapshots {
	t.Helper()
	return &snapshots{root: tempDir(t)}
}

// tempDir makes a directory that the pods' users can reach: the testing package's own is for
// its owner only.
func tempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// layer makes a layer and returns its directory.
func (s *snapshots) layer(t testing.TB) string {
	t.Helper()
	s.last++
	dir := filepath.Join(s.root, fmt.Sprint(s.last), "fs")
	must(t, os.MkdirAll(dir, 0o755))
	return dir
}

// layers makes n layers, topmost first. Layer i of n, counted from the bottom, has a file li.
func (s *snapshots) layers(t testing.TB, n int) []string {
	t.Helper()
	dirs := make([]string, n)
	for i := range n {
		dirs[n-1-i] = s.layer(t)
		write(t, filepath.Join(dirs[n-1-i], fmt.Sprintf("l%d", i)), 0o644)
	}
	return dirs
}

// container makes a writable snapshot over layers. It returns the mounts as the snapshotter would and the
// upper directory.
func (s *snapshots) container(t testing.TB, lower []string, options ...string) ([]Mount, string) {
	t.Helper()
	upper := s.layer(t)
	work := filepath.Join(filepath.Dir(upper), "work")
	must(t, os.Mkdir(work, 0o711))
	st := statHost(t, lower[0])
	must(t, os.Chown(upper, int(st.Uid), int(st.Gid)))
	options = append([]string{"workdir=" + work, "upperdir=" + upper, "lowerdir=" + strings.Join(lower, ":")}, options...)
	return []Mount{{Type: "overlay", Source: "overlay", Options: options}}, upper
}

// target makes a directory to mount on, and unmounts at the end.
func target(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(tempDir(t), "rootfs")
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		for unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
		}
	})
	return dir
}

// rootfs mounts for a pod and returns where.
func rootfs(t testing.TB, m *Mounter, p *testPod, mounts []Mount) string {
	t.Helper()
	dir := target(t)
	must(t, m.Mount(context.Background(), p.request(mounts, dir)))
	return dir
}

// request asks for a root filesystem for the pod, or without a user namespace when p is nil.
func (p *testPod) request(mounts []Mount, target string) Request {
	if p == nil {
		return Request{Mounts: mounts, Target: target}
	}
	return Request{Pod: p.key, UserNS: p.userns, Mapping: p.mapping, Mounts: mounts, Target: target}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path string, mode os.FileMode) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(filepath.Base(path)), mode))
	must(t, os.Chmod(path, mode))
}

func statHost(t testing.TB, path string) syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatalf("stat %s: %v", path, err)
	}
	return st
}

func wantOwner(t testing.TB, path string, uid, gid uint32) {
	t.Helper()
	if st := statHost(t, path); st.Uid != uid || st.Gid != gid {
		t.Errorf("%s belongs to %d:%d on the host, want %d:%d", path, st.Uid, st.Gid, uid, gid)
	}
}

func wantInside(t testing.TB, p *testPod, path string, uid, gid uint32) {
	t.Helper()
	if got := p.ids(t, path); got != [2]uint32{uid, gid} {
		t.Errorf("%s belongs to %d:%d inside, want %d:%d", path, got[0], got[1], uid, gid)
	}
}

// fingerprint describes everything below the directories: inode, owner, mode, links, disk usage, and the time of
// the last change to the inode, which no chown, chmod or copy can leave as it was.
func fingerprint(t testing.TB, dirs ...string) map[string]string {
	t.Helper()
	prints := make(map[string]string)
	for _, dir := range dirs {
		must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st := statHost(t, path)
			prints[path] = fmt.Sprintf("inode %d owner %d:%d mode %o links %d size %d blocks %d changed %v",
				st.Ino, st.Uid, st.Gid, st.Mode, st.Nlink, st.Size, st.Blocks, st.Ctim)
			return nil
		}))
	}
	return prints
}

func wantUntouched(t testing.TB, before, after map[string]string) {
	t.Helper()
	if maps.Equal(before, after) {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(after)) {
		if before[path] != after[path] {
			t.Errorf("%s: was %q, is %q", path, before[path], after[path])
		}
	}
	if len(before) != len(after) {
		t.Errorf("%d files before, %d after", len(before), len(after))
	}
}

// mountsOn returns the lines of the mount table whose mountpoint is dir.
func mountsOn(t testing.TB, dir string) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	var lines []string
	for line := range strings.Lines(string(table)) {
		if strings.Fields(line)[4] == dir {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
