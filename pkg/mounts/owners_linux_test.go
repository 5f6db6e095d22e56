package mounts

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwners holds what the image's files look like: stored unshifted, seen under the pod's ids.
func TestOwners(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layer(t)
		for name, id := range map[string]int{"root": 0, "user": 1000, "last": 65535, "beyond": 65536, "far": 3000000000} {
			write(t, filepath.Join(lower, name), 0o640)
			must(t, os.Lchown(filepath.Join(lower, name), id, id))
		}
		must(t, os.Symlink("user", filepath.Join(lower, "link")))
		must(t, os.Lchown(filepath.Join(lower, "link"), 7, 8))
		mounts, _ := s.container(t, []string{lower})
		root := rootfs(t, m, p, mounts)
		r := p.mapping.HostID

		wantInside(t, p, root, 0, 0)
		wantOwner(t, root, r, r)
		for name, inside := range map[string]uint32{"root": 0, "user": 1000, "last": 65535} {
			wantInside(t, p, filepath.Join(root, name), inside, inside)
			wantOwner(t, filepath.Join(root, name), r+inside, r+inside)
		}
		wantInside(t, p, filepath.Join(root, "link"), 7, 8)
		for _, name := range []string{"beyond", "far"} {
			wantInside(t, p, filepath.Join(root, name), 65534, 65534)
			wantOwner(t, filepath.Join(root, name), 65534, 65534)
			if out := p.try(t, task{Op: "append", Path: filepath.Join(root, name)}); out.Errno == 0 {
				t.Errorf("%s, which the pod does not own, was written inside", name)
			}
		}
		// Root of the pod is root over files of all its ids, and no user is over others'.
		p.do(t, task{Op: "append", Path: filepath.Join(root, "last")})
		if out := p.try(t, task{Op: "append", Path: filepath.Join(root, "root"), UID: 1000, GID: 1000}); out.Errno != syscall.EACCES {
			t.Errorf("user 1000 wrote root's file: %v", out.Errno)
		}
	})
}

// TestCreatedFiles holds who owns on disk what the container makes.
func TestCreatedFiles(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layer(t)
		must(t, os.Mkdir(filepath.Join(lower, "tmp"), 0o755))
		must(t, os.Chmod(filepath.Join(lower, "tmp"), 0o1777))
		write(t, filepath.Join(lower, "tmp", "image"), 0o644)
		mounts, upper := s.container(t, []string{lower})
		root := rootfs(t, m, p, mounts)
		r := p.mapping.HostID
		for _, id := range []int{0, 1, 1000, 65535} {
			name := filepath.Join("tmp", "by-"+strconv.Itoa(id))
			p.do(t, task{Op: "create", Path: filepath.Join(root, name), UID: id, GID: id, Mode: 0o600})
			wantOwner(t, filepath.Join(upper, name), r+uint32(id), r+uint32(id))
			wantInside(t, p, filepath.Join(root, name), uint32(id), uint32(id))
		}
		// A copy-up carries the shifted owner to the upper directory.
		p.do(t, task{Op: "append", Path: filepath.Join(root, "tmp/image")})
		wantOwner(t, filepath.Join(upper, "tmp/image"), r, r)
		wantOwner(t, filepath.Join(upper, "tmp"), r, r)
		p.do(t, task{Op: "chown", Path: filepath.Join(root, "tmp/image"), Mode: 1000})
		wantOwner(t, filepath.Join(upper, "tmp/image"), r+1000, r+1000)
		if out := p.try(t, task{Op: "chown", Path: filepath.Join(root, "tmp/image"), Mode: 65536}); out.Errno != syscall.EINVAL {
			t.Errorf("chown to an id that is not mapped: %v, want EINVAL", out.Errno)
		}
	})
}

// TestImageRootOwner holds that a root directory not owned by 0:0 looks inside as the image says,
// with the mode that the snapshotter gave it.
func TestImageRootOwner(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		for _, test := range []struct {
			uid, gid         int
			inUID, inGID     uint32
			diskUID, diskGID uint32 // relative to the range
		}{
			{1000, 2000, 1000, 2000, 1000, 2000},
			{0, 65535, 0, 65535, 0, 65535},
			{65536, 5, 65534, 5, 65534, 5}, // not mapped: the pod's own overflow id
		} {
			lower := s.layer(t)
			must(t, os.Chown(lower, test.uid, test.gid))
			mounts, upper := s.container(t, []string{lower})
			must(t, unix.Chmod(upper, 0o3751))
			root := rootfs(t, m, p, mounts)
			wantInside(t, p, root, test.inUID, test.inGID)
			r := p.mapping.HostID
			wantOwner(t, upper, r+test.diskUID, r+test.diskGID)
			wantOwner(t, lower, uint32(test.uid), uint32(test.gid))
			if mode := statHost(t, root).Mode & 0o7777; mode != 0o3751 {
				t.Errorf("mode of the root directory is %o", mode)
			}
		}
	})
}

// TestRootOwnerKept holds that a second mount of the same snapshot leaves the root directory to
// whom the container gave it.
func TestRootOwnerKept(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		mounts, upper := s.container(t, s.layers(t, 2))
		root := rootfs(t, m, p, mounts)
		p.do(t, task{Op: "chown", Path: root, Mode: 33})
		must(t, m.Unmount(t.Context(), root))
		root = rootfs(t, m, p, mounts)
		wantInside(t, p, root, 33, 33)
		wantOwner(t, upper, p.mapping.HostID+33, p.mapping.HostID+33)
	})
}

// TestWhiteouts holds that removals of upper layers are seen, and that those of the container go to its own.
func TestWhiteouts(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		bottom, top := s.layer(t), s.layer(t)
		for _, dir := range []string{"opaque", "plain"} {
			must(t, os.Mkdir(filepath.Join(bottom, dir), 0o755))
			must(t, os.Mkdir(filepath.Join(top, dir), 0o755))
			write(t, filepath.Join(bottom, dir, "below"), 0o644)
			write(t, filepath.Join(top, dir, "above"), 0o644)
		}
		must(t, unix.Setxattr(filepath.Join(top, "opaque"), "trusted.overlay.opaque", []byte("y"), 0))
		write(t, filepath.Join(bottom, "gone"), 0o644)
		must(t, unix.Mknod(filepath.Join(top, "gone"), unix.S_IFCHR, 0))
		mounts, upper := s.container(t, []string{top, bottom})
		root := rootfs(t, m, p, mounts)

		for path, there := range map[string]bool{
			"opaque/above": true, "opaque/below": false, "plain/above": true, "plain/below": true, "gone": false,
		} {
			out := p.try(t, task{Op: "stat", Path: filepath.Join(root, path)})
			if (out.Errno == 0) != there {
				t.Errorf("%s: %v, want there: %v", path, out.Errno, there)
			}
		}
		p.do(t, task{Op: "remove", Path: filepath.Join(root, "plain/below")})
		if mode := statHost(t, filepath.Join(upper, "plain/below")).Mode; mode&syscall.S_IFMT != syscall.S_IFCHR {
			t.Errorf("no whiteout in the upper directory: mode %o", mode)
		}
		p.do(t, task{Op: "create", Path: filepath.Join(root, "gone"), Mode: 0o600})
		p.do(t, task{Op: "rename", Path: filepath.Join(root, "gone"), To: filepath.Join(root, "moved")})
		wantInside(t, p, filepath.Join(root, "moved"), 0, 0)
	})
}

// TestHardLinks holds that links of a layer stay links inside, and can be made.
func TestHardLinks(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layer(t)
		write(t, filepath.Join(lower, "a"), 0o644)
		must(t, os.Link(filepath.Join(lower, "a"), filepath.Join(lower, "b")))
		mounts, _ := s.container(t, []string{lower})
		root := rootfs(t, m, p, mounts)
		a, b := statHost(t, filepath.Join(root, "a")), statHost(t, filepath.Join(root, "b"))
		if a.Ino != b.Ino || a.Nlink != 2 {
			t.Errorf("inodes %d and %d, %d links", a.Ino, b.Ino, a.Nlink)
		}
		p.do(t, task{Op: "link", Path: filepath.Join(root, "a"), To: filepath.Join(root, "c")})
		wantInside(t, p, filepath.Join(root, "c"), 0, 0)
	})
}

// capability is the security.capability attribute of revision 2: one permitted set, effective.
func capability(bit int) []byte {
	const revision2, effective = 0x02000000, 1
	words := []uint32{revision2 | effective, 1 << bit, 0, 0, 0}
	var b bytes.Buffer
	for _, w := range words {
		_ = binary.Write(&b, binary.LittleEndian, w)
	}
	return b.Bytes()
}

// TestPrivilegedFiles holds that set-uid bits, file capabilities and attributes of the image mean inside what they
// mean in the image.
func TestPrivilegedFiles(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layer(t)
		cat, err := os.ReadFile("/bin/cat")
		must(t, err)
		for _, name := range []string{"plain", "setuid", "capable"} {
			must(t, os.WriteFile(filepath.Join(lower, name), cat, 0o755))
		}
		must(t, os.Chmod(filepath.Join(lower, "setuid"), 0o755|os.ModeSetuid))
		must(t, unix.Setxattr(filepath.Join(lower, "capable"), "security.capability", capability(unix.CAP_NET_RAW), 0))
		must(t, unix.Setxattr(filepath.Join(lower, "plain"), "user.note", []byte("kept"), 0))
		mounts, _ := s.container(t, []string{lower})
		root := rootfs(t, m, p, mounts)

		for _, test := range []struct{ name, want string }{
			{"plain", "Uid:\t1000\t1000\t1000\t1000"},
			{"plain", "CapEff:\t0000000000000000"},
			{"setuid", "Uid:\t1000\t0\t0\t0"},
			{"capable", "Uid:\t1000\t1000\t1000\t1000"},
			{"capable", "CapEff:\t0000000000002000"},
		} {
			out := p.do(t, task{Op: "run", Path: filepath.Join(root, test.name), To: "/proc/self/status", UID: 1000, GID: 1000})
			if !strings.Contains(string(out.Data), test.want+"\n") {
				t.Errorf("%s run by user 1000 has not %q:\n%s", test.name, test.want, out.Data)
			}
		}
		got := p.do(t, task{Op: "getxattr", Path: filepath.Join(root, "capable"), To: "security.capability"}).Data
		if !bytes.Equal(got, capability(unix.CAP_NET_RAW)) {
			t.Errorf("capabilities inside: % x", got)
		}
		note := p.do(t, task{Op: "getxattr", Path: filepath.Join(root, "plain"), To: "user.note"}).Data
		if string(note) != "kept" {
			t.Errorf("user.note inside: %q", note)
		}
	})
}
