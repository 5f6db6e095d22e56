package mounts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// TestMountErrors holds that a mount which fails says why and leaves nothing on its target, nor in the stage, nor
// an open file.
func TestMountErrors(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layers(t, 3)
		good, upper := s.container(t, lower)
		must(t, m.Mount(t.Context(), p.request(good, target(t)))) // the clone is there from here on
		other := newPod(t)
		plainFile := filepath.Join(s.root, "pin")
		write(t, plainFile, 0o600)

		with := func(change func(*Request)) Request {
			mounts, _ := s.container(t, lower)
			req := p.request(mounts, target(t))
			change(&req)
			return req
		}
		replace := func(old, replacement string) Request {
			return with(func(r *Request) {
				for i, o := range r.Mounts[0].Options {
					r.Mounts[0].Options[i] = strings.Replace(o, old, replacement, 1)
				}
			})
		}
		add := func(option string) Request {
			return with(func(r *Request) { r.Mounts[0].Options = append(r.Mounts[0].Options, option) })
		}
		for _, test := range []struct {
			name string
			req  Request
			is   error
			says string
		}{
			{"layer is missing", replace(lower[1], lower[1]+"-missing"), os.ErrNotExist, lower[1] + "-missing"},
			{"work directory is missing", replace("/work", "/nowork"), os.ErrNotExist, "nowork"},
			{"layer is a file", replace(lower[1], plainFile), unix.ENOTDIR, "pin"},
			{"option that overlay does not know", add("nonsense=1"), unix.EINVAL, "nonsense"},
			{"options that exclude each other", add("metacopy=on,redirect_dir=off"), unix.EINVAL, ""},
			{"target is missing", with(func(r *Request) { r.Target += "-missing" }), os.ErrNotExist, "-missing"},
			{"target is a file", with(func(r *Request) { r.Target = plainFile }), unix.ENOTDIR, plainFile},
			{"target is relative", with(func(r *Request) { r.Target = "rootfs" }), nil, "absolute"},
			{"pin is missing", with(func(r *Request) { r.Pod, r.UserNS = "new", plainFile+"-gone" }), os.ErrNotExist, "-gone"},
			{"pin is a plain file", with(func(r *Request) { r.Pod, r.UserNS = "new", plainFile }), nil, "not a user namespace"},
			{"pin is another namespace", with(func(r *Request) { r.Pod, r.UserNS = "new", "/proc/self/ns/net" }), nil, "not a user namespace"},
			{"mapping is another pod's", with(func(r *Request) { r.Mapping = other.mapping }), ErrMapping, ""},
			{"userns is another pod's", with(func(r *Request) { r.Pod, r.UserNS = "new", other.userns }), ErrMapping, ""},
			{"no pod", with(func(r *Request) { r.Pod = "" }), nil, "pod"},
			{"no mapping", with(func(r *Request) { r.Mapping = Mapping{} }), nil, "mapping"},
			{"template", with(func(r *Request) { r.Mounts[0].Type = "format/overlay" }), ErrUnsupportedMount, "format/overlay"},
			{"bind source is missing", with(func(r *Request) {
				r.Mounts = []Mount{{Type: "bind", Source: upper + "-missing"}}
			}), os.ErrNotExist, "-missing"},
			{"unknown filesystem", with(func(r *Request) {
				r.Mounts = []Mount{{Type: "nosuchfs", Source: "none"}}
			}), unix.ENODEV, "nosuchfs"},
		} {
			files := openFiles(t)
			err := m.Mount(t.Context(), test.req)
			if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: %v, want %v that says %q", test.name, err, test.is, test.says)
			}
			if !strings.Contains(err.Error(), test.req.Target) {
				t.Errorf("%s: %q does not name the target", test.name, err)
			}
			if left := mountsOn(t, test.req.Target); len(left) != 0 {
				t.Errorf("%s: left: %q", test.name, left)
			}
			m.Forget("new")
			if now := openFiles(t); now != files {
				t.Errorf("%s: %d open files, %d before", test.name, now, files)
			}
			m.checkStage(t)
		}
		if got := m.Stats(); got.Clones != 1 || got.Mounts != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// TestMountTwice holds that a second mount does not hide the first.
func TestMountTwice(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		mounts, _ := s.container(t, s.layers(t, 1))
		root := rootfs(t, m, p, mounts)
		if err := m.Mount(t.Context(), p.request(mounts, root)); !errors.Is(err, ErrMounted) {
			t.Errorf("%v, want ErrMounted", err)
		}
		link := filepath.Join(tempDir(t), "link")
		must(t, os.Symlink(t.TempDir(), link))
		if err := m.Mount(t.Context(), p.request(mounts, link)); !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			t.Errorf("target is a symbolic link: %v", err)
		}
	})
}

// TestCancelled holds that a cancelled context mounts nothing.
func TestCancelled(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		mounts, _ := s.container(t, s.layers(t, 1))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		root := target(t)
		bind := []Mount{{Type: "bind", Source: s.root}}
		for _, mounts := range [][]Mount{mounts, bind} {
			if err := m.Mount(ctx, p.request(mounts, root)); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want context.Canceled", err)
			}
		}
		if left := mountsOn(t, root); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
		if err := m.Unmount(ctx, root); !errors.Is(err, context.Canceled) {
			t.Errorf("unmount: %v, want context.Canceled", err)
		}
	})
}

// TestUnmount holds that it can be repeated, at any state of the target, and never removes a file.
func TestUnmount(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		mounts, upper := s.container(t, s.layers(t, 2))
		root := rootfs(t, m, p, mounts)
		p.do(t, task{Op: "create", Path: filepath.Join(root, "f"), Mode: 0o600})
		link := filepath.Join(tempDir(t), "link")
		must(t, os.Symlink(root, link))
		must(t, m.Unmount(t.Context(), link)) // the link itself is no mountpoint
		if len(mountsOn(t, root)) != 1 {
			t.Error("a symbolic link was followed")
		}

		stacked := s.layer(t)
		must(t, unix.Mount(stacked, root, "", unix.MS_BIND, ""))
		busy, err := os.Open(root)
		must(t, err)
		must(t, m.Unmount(t.Context(), root))
		if left := mountsOn(t, root); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
		must(t, busy.Close())
		for _, path := range []string{root, filepath.Join(root, "missing"), filepath.Join(upper, "f"), filepath.Join(upper, "f", "below")} {
			must(t, m.Unmount(t.Context(), path))
		}
		wantOwner(t, filepath.Join(upper, "f"), p.mapping.HostID, p.mapping.HostID)
		if got := m.Stats().Unmounts; got != 1 {
			t.Errorf("%d unmounts counted", got)
		}
	})
}

// TestWayAuto holds that the kernel is asked once, and not before it matters.
func TestWayAuto(t *testing.T) {
	testkit.RequireRoot(t)
	for way, refusal := range map[Way]error{WayDetached: nil, WayStaged: errors.New("too old")} {
		t.Run(way.String(), func(t *testing.T) {
			requireWay(t, way)
			asked := 0
			m, err := New(Options{DetachedLayers: func() error { asked++; return refusal }})
			must(t, err)
			t.Cleanup(func() { must(t, m.Close()) })
			if asked != 0 {
				t.Error("asked before the first mount")
			}
			s, p := newSnapshots(t), newPod(t)
			for range 2 {
				mounts, _ := s.container(t, s.layers(t, 2))
				wantInside(t, p, filepath.Join(rootfs(t, m, p, mounts), "l1"), 0, 0)
			}
			if asked != 1 || m.stage.ready != (way == WayStaged) {
				t.Errorf("asked %d times; staged: %v", asked, m.stage.ready)
			}
		})
	}
}

// TestNew holds which options make a Mounter.
func TestNew(t *testing.T) {
	for _, o := range []Options{{}, {Way: 9}, {Way: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v made a Mounter", o)
		}
	}
}

// TestMainThreadStays holds that work in the stage never takes the process's main thread along, whose
// namespaces are what /proc/<pid> shows.
func TestMainThreadStays(t *testing.T) {
	testkit.RequireRoot(t)
	m := newMounter(t, WayStaged)
	before, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	for range 50 {
		must(t, m.stage.run(func() error {
			inside, err := os.Readlink("/proc/thread-self/ns/mnt")
			if err == nil { // no proc in the stage
				t.Errorf("the stage shows /proc: %s", inside)
			}
			return nil
		}))
	}
	after, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	if before != after {
		t.Errorf("mount namespace was %s, is %s", before, after)
	}
}

// TestStageHoldsNothing holds that the stage keeps nothing alive that the host unmounts, though it began as
// a copy of the host's mount table.
func TestStageHoldsNothing(t *testing.T) {
	testkit.RequireRoot(t)
	m, device, dir := newMounter(t, WayStaged), loopDevice(t), tempDir(t)
	must(t, unix.Mount(device, dir, "ext4", 0, ""))
	must(t, m.stage.run(func() error { return nil }))
	must(t, unix.Unmount(dir, 0))
	// EBUSY while mounted anywhere: for a moment perhaps in somebody else's new mount namespace, in the
	// stage until the end of this test.
	err := error(unix.EBUSY)
	for deadline := time.Now().Add(20 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		var exclusive *os.File
		if exclusive, err = os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0); err == nil {
			exclusive.Close()
			return
		}
	}
	t.Fatalf("still mounted in the stage: %v", err)
}
