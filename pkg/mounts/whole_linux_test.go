package mounts

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBindWritable holds an image without layers: the snapshotter binds the writable directory itself, which
// is idmapped as a whole, and ids on disk stay unshifted.
func TestBindWritable(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		dir := s.layer(t)
		root := rootfs(t, m, p, []Mount{{Type: "bind", Source: dir, Options: []string{"rw", "rbind"}}})
		wantInside(t, p, root, 0, 0)
		p.do(t, task{Op: "create", Path: filepath.Join(root, "f"), Mode: 0o600})
		p.do(t, task{Op: "chown", Path: filepath.Join(root, "f"), Mode: 65535})
		wantInside(t, p, filepath.Join(root, "f"), 65535, 65535)
		wantOwner(t, filepath.Join(dir, "f"), 65535, 65535)
		wantOwner(t, dir, 0, 0)
		if got := m.Stats(); got.IDMaps != 1 || got.Clones != 0 {
			t.Errorf("%+v, want one idmap that is not held", got)
		}
	})
}

// TestBindReadonly holds a view of one layer, with attributes.
func TestBindReadonly(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		dir := s.layers(t, 1)[0]
		before := fingerprint(t, dir)
		root := rootfs(t, m, p, []Mount{{Type: "bind", Source: dir, Options: []string{"ro", "rbind", "nodev", "noatime"}}})
		wantInside(t, p, filepath.Join(root, "l0"), 0, 0)
		if out := p.try(t, task{Op: "append", Path: filepath.Join(root, "l0")}); out.Errno != unix.EROFS {
			t.Errorf("append: %v, want EROFS", out.Errno)
		}
		has(t, strings.Fields(mountsOn(t, root)[0])[5], []string{"ro", "nodev", "noatime"})
		wantUntouched(t, before, fingerprint(t, dir))
	})
}

// TestBindRecursive holds that rbind takes mounts below the directory along, idmapped.
func TestBindRecursive(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		dir := s.layer(t)
		below := filepath.Join(dir, "below")
		must(t, os.Mkdir(below, 0o755))
		write(t, filepath.Join(bindOther(t, below), "f"), 0o644)
		for option, there := range map[string]bool{"rbind": true, "bind": false} {
			root := rootfs(t, m, p, []Mount{{Type: "bind", Source: dir, Options: []string{option}}})
			path := filepath.Join(root, "below/f")
			if !there {
				if out := p.try(t, task{Op: "stat", Path: path}); out.Errno != unix.ENOENT {
					t.Errorf("%s: %v, want ENOENT", option, out.Errno)
				}
				continue
			}
			wantInside(t, p, path, 0, 0)
		}
	})
}

// bindOther mounts a directory of its own on dir, and returns dir. (Not a tmpfs, which older
// kernels cannot idmap.)
func bindOther(t *testing.T, dir string) string {
	t.Helper()
	must(t, unix.Mount(tempDir(t), dir, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// TestFilesystem holds snapshotters with a block device for each snapshot.
func TestFilesystem(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		p := newPod(t)
		device := loopDevice(t)
		mounts := []Mount{{Type: "ext4", Source: device, Options: []string{"nosuid", "discard", "stripe=4"}}}
		root := rootfs(t, m, p, mounts)
		wantInside(t, p, root, 0, 0)
		p.do(t, task{Op: "create", Path: filepath.Join(root, "f"), Mode: 0o600})
		line := mountsOn(t, root)[0]
		if !strings.Contains(line, " - ext4 "+device+" ") || !strings.Contains(line, "stripe=4") || !strings.Contains(line, "nosuid") {
			t.Errorf("mounted as %s", line)
		}
		must(t, m.Unmount(t.Context(), root))
		plain := rootfs(t, m, nil, mounts)
		wantOwner(t, filepath.Join(plain, "f"), 0, 0)
	})
}

// loopDevice makes a block device with an ext4 on it.
func loopDevice(t *testing.T) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 16<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4 (Debian package e2fsprogs): %v\n%s", err, out)
	}
	out, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v\n%s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach: %v\n%s", err, out)
		}
	})
	return device
}

// TestNotIDMappable holds the error for what cannot be idmapped: it names path, mountpoint, type and remedy.
func TestNotIDMappable(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		mounts, _ := s.container(t, s.layers(t, 1))
		merged := rootfs(t, m, nil, mounts)
		must(t, os.Mkdir(filepath.Join(merged, "volume"), 0o755))
		volume := filepath.Join(merged, "volume")

		outer := s.layer(t)
		below := filepath.Join(outer, "below")
		must(t, os.Mkdir(below, 0o755))
		must(t, unix.Mount(merged, below, "", unix.MS_BIND, ""))
		t.Cleanup(func() { must(t, unix.Unmount(below, unix.MNT_DETACH)) })

		bind := p.request([]Mount{{Type: "bind", Source: volume, Options: []string{"rbind"}}}, target(t))
		recursive := p.request([]Mount{{Type: "bind", Source: outer, Options: []string{"rbind"}}}, target(t))
		layers := p.request([]Mount{{Type: "overlay", Options: []string{"lowerdir=" + volume + ":" + merged}}}, target(t))
		sysfs := p.request([]Mount{{Type: "sysfs", Source: "sysfs"}}, target(t))
		for _, test := range []struct {
			name                     string
			err                      error
			path, mountpoint, fsType string
		}{
			{"check", check(m, p, volume, false), volume, merged, "overlay"},
			{"recursive check", check(m, p, volume, true), volume, merged, "overlay"},
			{"mount below", check(m, p, outer, true), outer, below, "overlay"},
			{"bind", m.Mount(t.Context(), bind), volume, merged, "overlay"},
			{"recursive bind", m.Mount(t.Context(), recursive), outer, below, "overlay"},
			{"layers", m.Mount(t.Context(), layers), merged, merged, "overlay"},
			{"filesystem", m.Mount(t.Context(), sysfs), "sysfs", sysfs.Target, "sysfs"},
		} {
			var refused *IDMapError
			if !errors.As(test.err, &refused) || !errors.Is(test.err, ErrNotIDMappable) {
				t.Errorf("%s: %v, want ErrNotIDMappable", test.name, test.err)
				continue
			}
			if refused.Path != test.path || refused.Mountpoint != test.mountpoint || refused.FSType != test.fsType {
				t.Errorf("%s: %+v", test.name, refused)
			}
			if !strings.Contains(test.err.Error(), "hostUsers: true") {
				t.Errorf("%s: no remedy in %q", test.name, test.err)
			}
		}
		must(t, check(m, p, outer, false)) // "idmap" leaves mounts below alone
		for _, req := range []Request{bind, recursive, layers, sysfs} {
			if left := mountsOn(t, req.Target); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		}
	})
}

func check(m *Mounter, p *testPod, path string, recursive bool) error {
	return m.CheckIDMappable(context.Background(), Check{Path: path, UserNS: p.userns, Recursive: recursive})
}

// TestCheck holds what passes the check, and that nothing is left of it.
func TestCheck(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		dir := s.layers(t, 1)[0]
		for _, path := range []string{dir, filepath.Join(dir, "l0")} {
			must(t, check(m, p, path, true))
		}
		if err := check(m, p, filepath.Join(dir, "missing"), false); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("missing path: %v", err)
		}
		must(t, m.CheckIDMappable(t.Context(), Check{Path: "/proc"})) // no user namespace, nothing to check
		idmapped := rootfs(t, m, p, []Mount{{Type: "bind", Source: dir}})
		if err := check(m, p, idmapped, false); !errors.Is(err, ErrNotIDMappable) {
			t.Errorf("a mount that is idmapped already: %v", err)
		}
		if got := m.Stats(); got.Checks != 3 || got.IDMaps != 1 {
			t.Errorf("%+v", got)
		}
		wantOwner(t, filepath.Join(dir, "l0"), 0, 0)
	})
}
