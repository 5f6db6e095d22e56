package ocispec

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mountOptions is a script that prints "<path> <options> <optional fields> - ..." for mounts at and
// below /m.
const mountOptions = `while read -r id parent dev root at options rest; do
  case $at in /m/*) echo "$at $options $rest";; esac
done </proc/self/mountinfo; true`

// A tmpfs with another one inside, both shared, shows which mounts an option reaches.
func (b *bench) tmpfsTree() string {
	b.t.Helper()
	top := filepath.Join(b.dir, "tree")
	sub := filepath.Join(top, "sub")
	for _, dir := range []string{top, sub} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOATIME, "mode=755"); err != nil {
			b.t.Fatal(err)
		}
		if err := syscall.Mount("", dir, "", syscall.MS_SHARED, ""); err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				b.t.Errorf("unmount %s: %v", dir, err)
			}
		})
	}
	return top
}

func TestRuncReadonlyMounts(t *testing.T) {
	for name, owner := range map[string]int{"host": 0, "userns": testHostID} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, owner)
			tree := b.tmpfsTree()
			c := b.container(mountOptions)
			c.Mounts = []Mount{
				{HostPath: tree, ContainerPath: "/m/rw", IDMapped: owner != 0},
				{HostPath: tree, ContainerPath: "/m/ro", IDMapped: owner != 0, Readonly: true},
				{HostPath: tree, ContainerPath: "/m/rro", IDMapped: owner != 0, Readonly: true, RecursiveReadOnly: true},
				{HostPath: tree, ContainerPath: "/m/noexec", Options: []string{"noexec", "rnosuid"}},
			}
			got := make(map[string]string)
			for line := range strings.Lines(b.run(c)) {
				f := strings.Fields(line)
				got[f[0]] = f[1]
			}
			for at, want := range map[string]string{
				"/m/rw": "rw", "/m/rw/sub": "rw", "/m/ro": "ro", "/m/ro/sub": "rw", "/m/rro": "ro", "/m/rro/sub": "ro",
			} {
				if first, _, _ := strings.Cut(got[at], ","); first != want {
					t.Errorf("%s: %q, want %s", at, got[at], want)
				}
			}
			for at, want := range map[string]bool{"/m/noexec": true, "/m/noexec/sub": false} {
				if strings.Contains(got[at], "noexec") != want || !strings.Contains(got[at], "nosuid") {
					t.Errorf("%s: %q", at, got[at])
				}
			}
		})
	}
}

// A pod in a user namespace that mounts a read-only mount of the host without saying so gets
// it read-only, as mount --bind does, instead of an error of runc.
func TestRuncUsernsReadonlySource(t *testing.T) {
	b := newBench(t, testHostID)
	tree := b.tmpfsTree()
	if err := syscall.Mount("", tree, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	c := b.container(`touch /a/x /b/x 2>/dev/null || echo read-only
mount -o remount,rw,bind /b 2>/dev/null || echo locked`)
	c.Security.Capabilities.Add = []string{"SYS_ADMIN"}
	c.Mounts = []Mount{{HostPath: tree, ContainerPath: "/a", IDMapped: true}, {HostPath: tree, ContainerPath: "/b"}}
	b.expect(c, "read-only\nlocked")
}

// idmap reaches the top mount only: below it files of the host's root belong to nobody.
func TestRuncIDMapIsNotRecursive(t *testing.T) {
	b := newBench(t, testHostID)
	c := b.container(`stat -c %u /m /m/sub`)
	c.Mounts = []Mount{{HostPath: b.tmpfsTree(), ContainerPath: "/m", IDMapped: true}}
	b.expect(c, "0\n65534")
}

// tags returns the optional fields of the mount that the container has at /m/x.
func (b *bench) tags(tree string, p Propagation) string {
	b.t.Helper()
	c := b.container(mountOptions)
	c.Mounts = []Mount{{HostPath: tree, ContainerPath: "/m/x", Propagation: p}}
	for line := range strings.Lines(b.run(c)) {
		if f := strings.Fields(line); f[0] == "/m/x" {
			tags, _, _ := strings.Cut(strings.Join(f[2:], " ")+" ", "- ")
			return tags
		}
	}
	b.t.Fatal("no mount at /m/x")
	return ""
}

func TestRuncPropagation(t *testing.T) {
	for name, owner := range map[string]int{"host": 0, "userns": testHostID} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, owner)
			tree := b.tmpfsTree()
			if got := b.tags(tree, PropagationPrivate); got != "" {
				t.Errorf("private: %q", got)
			}
			if got := b.tags(tree, PropagationHostToContainer); !strings.HasPrefix(got, "master:") {
				t.Errorf("slave: %q", got)
			}
			if owner != 0 {
				return // refused, see TestBuildRefuses
			}
			if got := b.tags(tree, PropagationBidirectional); !strings.HasPrefix(got, "shared:") {
				t.Errorf("shared: %q", got)
			}
		})
	}
}
