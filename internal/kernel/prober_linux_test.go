package kernel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// newUserNS makes a user namespace with a process that is gone when it returns.
func newUserNS() (*os.File, error) {
	holder := exec.Command("sleep", "60")
	extent := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1879048192, Size: 65536}}
	holder.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: extent, GidMappings: extent,
		GidMappingsEnableSetgroups: true,
	}
	if err := holder.Start(); err != nil {
		return nil, err
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
	_ = holder.Process.Kill()
	_ = holder.Wait()
	return ns, err
}

func newProber(t *testing.T) *Prober {
	t.Helper()
	testkit.RequireRoot(t)
	p, err := New(Options{UserNS: newUserNS})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// release returns the running kernel's version.
func release(t *testing.T) (major, minor int) {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	text := unix.ByteSliceToString(name.Release[:])
	if _, err := fmt.Sscanf(text, "%d.%d", &major, &minor); err != nil {
		t.Fatalf("kernel release %q: %v", text, err)
	}
	return major, minor
}

// TestVersions holds that a kernel which is new enough has the feature. An older one may have it
// too; then nothing is wrong with the probe.
func TestVersions(t *testing.T) {
	p := newProber(t)
	major, minor := release(t)
	dir := t.TempDir()
	for _, test := range []struct {
		name         string
		major, minor int
		ask          func() error
	}{
		{"user namespaces", 3, 8, p.UserNamespaces},
		{"pidfd", 5, 3, p.PIDFD},
		{"idmapped mounts", 5, 12, func() error { return p.IDMapped(dir) }},
		{"idmapped overlay layers", 5, 19, func() error { return p.OverlayLayersIDMapped(dir) }},
		{"idmapped tmpfs", 6, 3, p.TmpfsIDMapped},
		{"detached overlay layers", 6, 15, p.OverlayDetachedLayers},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.ask()
			expected := major > test.major || major == test.major && minor >= test.minor
			switch {
			case expected && err != nil:
				t.Errorf("Linux %d.%d: %v", major, minor, err)
			case !expected && err != nil && !errors.Is(err, ErrNotSupported):
				t.Errorf("Linux %d.%d: %v, want a refusal that is ErrNotSupported", major, minor, err)
			}
		})
	}
	for _, f := range p.Features() {
		if f.Name == "" || f.Needs == "" {
			t.Errorf("feature without name or requirement: %+v", f)
		}
	}
}

// TestRefusals asks about filesystems that no kernel can idmap.
func TestRefusals(t *testing.T) {
	p := newProber(t)
	merged := mergedOverlay(t)
	for name, err := range map[string]error{
		"proc":           p.IDMapped("/proc"),
		"merged overlay": p.IDMapped(merged),
		"layers on it":   p.OverlayLayersIDMapped(merged),
	} {
		var refused *FeatureError
		if !errors.As(err, &refused) || !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s: %v, want ErrNotSupported", name, err)
			continue
		}
		for _, part := range []string{refused.Feature, refused.Where, refused.Needs} {
			if part == "" || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %q lacks %q", name, err, part)
			}
		}
	}
	entries, err := os.ReadDir(merged)
	if err != nil || len(entries) != 0 {
		t.Errorf("the probe left %v in the directory (%v)", entries, err)
	}
	if err := p.IDMapped(filepath.Join(merged, "missing")); !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrNotSupported) {
		t.Errorf("missing path: %v, want ErrNotExist and no verdict", err)
	}
}

// mergedOverlay mounts an overlay for the duration of the test.
func mergedOverlay(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"l", "u", "w", "m"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(dir, "m")
	options := fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w", dir)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	})
	return merged
}

// TestNothingLeft holds that probes leave no mount, no file and no descriptor.
func TestNothingLeft(t *testing.T) {
	testkit.RequireRoot(t)
	dir := t.TempDir()
	before, files := mountsAt(t, dir), openFiles(t)
	for range 3 {
		p := newProber(t)
		p.Features()
		if err := errors.Join(p.IDMapped(dir), p.OverlayLayersIDMapped(dir)); err != nil && !errors.Is(err, ErrNotSupported) {
			t.Fatal(err)
		}
	}
	if after := mountsAt(t, dir); after != before {
		t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
	}
	if now := openFiles(t); now > files {
		t.Errorf("%d open files, %d before", now, files)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left in the directory: %v (%v)", entries, err)
	}
}

// TestLeftScratch: a probe that was killed left its directory, and another is at work.
func TestLeftScratch(t *testing.T) {
	p, dir := newProber(t), t.TempDir()
	left, used := filepath.Join(dir, scratchPrefix+"left"), filepath.Join(dir, scratchPrefix+"used")
	for _, scratch := range []string{left, used} {
		for _, name := range layerNames {
			if err := os.MkdirAll(filepath.Join(scratch, name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := time.Now().Add(-2 * scratchAge)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	if err := p.OverlayLayersIDMapped(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the scratch directory of a probe that was killed: %v, want it gone", err)
	}
	if _, err := os.Stat(filepath.Join(used, layerNames[1])); err != nil {
		t.Errorf("the scratch directory of a probe at work: %v", err)
	}
}

// mountsAt returns the lines of the mount table for / and for all below dir: tests of other packages mount
// elsewhere at the same time, and a probe attaches nothing but on the root of a namespace of its own.
func mountsAt(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(mountTable(t)) {
		if fields := strings.Fields(line); fields[4] == "/" || strings.HasPrefix(fields[4], dir) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func mountTable(t *testing.T) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(table)
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestAskedOnce holds that a probe runs once, however many ask.
func TestAskedOnce(t *testing.T) {
	testkit.RequireRoot(t)
	var calls atomic.Int64
	p, err := New(Options{UserNS: func() (*os.File, error) { calls.Add(1); return newUserNS() }})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			_ = p.UserNamespaces()
			_ = p.TmpfsIDMapped()
			_ = p.IDMapped(dir)
		})
	}
	asking.Wait()
	if n := calls.Load(); n != 3 {
		t.Errorf("%d user namespaces made for three probes", n)
	}
}

// TestNoUserNS holds what a failure to make a user namespace means: exhausted or forbidden is a missing
// feature, any other is not known.
func TestNoUserNS(t *testing.T) {
	for _, test := range []struct {
		err     error
		missing bool
	}{
		{unix.ENOSPC, true},
		{unix.EINVAL, true},
		{unix.EPERM, false},
		{unix.EMFILE, false},
	} {
		p, err := New(Options{UserNS: func() (*os.File, error) { return nil, os.NewSyscallError("clone", test.err) }})
		if err != nil {
			t.Fatal(err)
		}
		got := p.UserNamespaces()
		if !errors.Is(got, test.err) || errors.Is(got, ErrNotSupported) != test.missing {
			t.Errorf("%v: %v, want missing %v", test.err, got, test.missing)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("a prober without user namespaces was made")
	}
}

// TestCgroupMode compares with the mount table.
func TestCgroupMode(t *testing.T) {
	p, err := New(Options{UserNS: newUserNS})
	if err != nil {
		t.Fatal(err)
	}
	table := mountTable(t)
	want := CgroupLegacy
	switch {
	case strings.Contains(table, " /sys/fs/cgroup ") && strings.Contains(table, " - cgroup2 ") && !strings.Contains(table, " - cgroup "):
		want = CgroupUnified
	case strings.Contains(table, " /sys/fs/cgroup/unified "):
		want = CgroupHybrid
	case !strings.Contains(table, " /sys/fs/cgroup"):
		want = CgroupUnavailable
	}
	if got := p.CgroupMode(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
