package mounts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestVolume holds that a read-only view of a directory and of a file is idmapped, read-only and
// private, and leaves its source alone.
func TestVolume(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		dir := s.layer(t)
		write(t, filepath.Join(dir, "f"), 0o644)
		before := fingerprint(t, dir)
		targets := t.TempDir()
		for name, source := range map[string]string{"dir": dir, "file": filepath.Join(dir, "f")} {
			target := filepath.Join(targets, name)
			must(t, m.MountVolume(t.Context(), Volume{Source: source, Target: target, UserNS: p.userns}))
			wantInside(t, p, target, 0, 0)
			fields := strings.Fields(mountsOn(t, target)[0])
			has(t, fields[5], []string{"ro"})
			if strings.HasPrefix(fields[6], "shared:") || strings.HasPrefix(fields[6], "master:") {
				t.Errorf("propagation %s, want none", fields[6])
			}
			must(t, m.Unmount(t.Context(), target))
			must(t, os.Remove(target))
		}
		wantUntouched(t, before, fingerprint(t, dir))
	})
}

// TestVolumeRecursive holds that mounts below come along, read-only when that is asked for.
func TestVolumeRecursive(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		dir := s.layer(t)
		below := filepath.Join(dir, "below")
		must(t, os.Mkdir(below, 0o755))
		write(t, filepath.Join(bindOther(t, below), "f"), 0o644)
		for _, recursive := range []bool{false, true} {
			target := filepath.Join(t.TempDir(), "v")
			must(t, m.MountVolume(t.Context(), Volume{Source: dir, Target: target, UserNS: p.userns, Recursive: recursive}))
			err := os.WriteFile(filepath.Join(target, "below/f"), nil, 0o644)
			if got := errors.Is(err, unix.EROFS); got != recursive {
				t.Errorf("recursive %t: writing below gives %v", recursive, err)
			}
			if err := os.WriteFile(filepath.Join(target, "g"), nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("recursive %t: writing gives %v, want EROFS", recursive, err)
			}
			must(t, m.Unmount(t.Context(), target))
		}
	})
}

// TestVolumeRefused holds the errors, which leave nothing mounted.
func TestVolumeRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		p := newPod(t)
		target := filepath.Join(t.TempDir(), "v")
		if err := m.MountVolume(t.Context(), Volume{Source: "/proc/sys", Target: target, UserNS: p.userns}); !errors.Is(err, ErrNotIDMappable) {
			t.Errorf("proc: got %v, want ErrNotIDMappable", err)
		}
		if err := m.MountVolume(t.Context(), Volume{Source: "/no/such/source", Target: target + "2", UserNS: p.userns}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("missing source: got %v, want ErrNotExist", err)
		}
		if err := m.MountVolume(t.Context(), Volume{Source: t.TempDir(), Target: target, UserNS: p.userns}); !errors.Is(err, ErrMounted) {
			t.Errorf("taken target: got %v, want ErrMounted", err)
		}
	})
}
