package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// TestLayersUntouched holds that nothing below a layer is copied, chowned or otherwise changed by a
// mount, nor by what a container does, nor by the unmount.
func TestLayersUntouched(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layers(t, 5)
		must(t, os.Mkdir(filepath.Join(lower[4], "etc"), 0o755))
		write(t, filepath.Join(lower[4], "etc/passwd"), 0o644)
		must(t, os.Link(filepath.Join(lower[4], "etc/passwd"), filepath.Join(lower[4], "linked")))
		before := fingerprint(t, lower...)
		mounts, _ := s.container(t, lower)
		root := rootfs(t, m, p, mounts)
		wantUntouched(t, before, fingerprint(t, lower...))

		for _, do := range []task{
			{Op: "append", Path: "etc/passwd"},
			{Op: "chmod", Path: "l1", Mode: 0o600},
			{Op: "chown", Path: "l2", Mode: 1000},
			{Op: "remove", Path: "l0"},
			{Op: "rename", Path: "l3", To: "renamed"},
			{Op: "create", Path: "etc/new", Mode: 0o600},
		} {
			do.Path = filepath.Join(root, do.Path)
			if do.To != "" {
				do.To = filepath.Join(root, do.To)
			}
			p.do(t, do)
		}
		must(t, m.Unmount(t.Context(), root))
		wantUntouched(t, before, fingerprint(t, lower...))
	})
}

// TestOneIDMap holds that a pod costs one idmap, whatever the number of layers, images and containers.
func TestOneIDMap(t *testing.T) {
	for _, layers := range []int{1, 40, 127} {
		t.Run(fmt.Sprint(layers), func(t *testing.T) {
			eachWay(t, func(t *testing.T, m *Mounter) {
				s, p := newSnapshots(t), newPod(t)
				lower := s.layers(t, layers)
				for _, image := range [][]string{lower, lower, s.layers(t, 1)} {
					mounts, _ := s.container(t, image, "index=off")
					root := rootfs(t, m, p, mounts)
					for i := range image {
						wantInside(t, p, filepath.Join(root, fmt.Sprintf("l%d", i)), 0, 0)
					}
				}
				if got, want := m.Stats(), (Stats{IDMaps: 1, Mounts: 3, Clones: 1}); got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
			})
		})
	}
}

// TestOneIDMapPerMount holds that layers which are mounts of their own are not passed over: their clones are
// their own, and what is below the mountpoint is never seen.
func TestOneIDMapPerMount(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layers(t, 3)
		write(t, filepath.Join(lower[1], "hidden"), 0o644)
		write(t, filepath.Join(bindOther(t, lower[1]), "shown"), 0o644)
		for range 2 {
			mounts, _ := s.container(t, lower)
			root := rootfs(t, m, p, mounts)
			for _, name := range []string{"l0", "shown", "l2"} {
				wantInside(t, p, filepath.Join(root, name), 0, 0)
			}
			if _, err := os.Lstat(filepath.Join(root, "hidden")); !os.IsNotExist(err) {
				t.Errorf("hidden: %v", err)
			}
		}
		if got := m.Stats(); got.IDMaps != 2 || got.Clones != 2 {
			t.Errorf("%+v, want two idmaps", got)
		}
	})
}

// TestSymlinkedRoot holds that a snapshotter's directory may be reached through a symbolic link.
func TestSymlinkedRoot(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		link := filepath.Join(tempDir(t), "link")
		must(t, os.Symlink(s.root, link))
		s.root = link
		mounts, _ := s.container(t, s.layers(t, 3))
		wantInside(t, p, filepath.Join(rootfs(t, m, p, mounts), "l1"), 0, 0)
	})
}

// TestOptionsCarried holds that the filesystem gets every option, as /proc/self/mountinfo shows them.
func TestOptionsCarried(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		for _, test := range []struct {
			options []string
			shown   []string // in the options of the filesystem
			mount   []string // in those of the mount
		}{
			{[]string{"index=on", "volatile"}, []string{"index=on", "volatile|fsync=volatile"}, nil},
			{[]string{"userxattr", "index=off"}, []string{"userxattr"}, nil},
			{[]string{"redirect_dir=on", "metacopy=on", "xino=off"}, []string{"redirect_dir=on", "metacopy=on"}, nil},
			{[]string{"index=on", "nfs_export=on", "uuid=off"}, []string{"nfs_export=on", "uuid=off"}, nil},
			{
				[]string{"nosuid", "nodev", "noexec", "noatime", "default_permissions"},
				[]string{"default_permissions"},
				[]string{"nosuid", "nodev", "noexec", "noatime"},
			},
			{[]string{"ro"}, []string{"ro"}, []string{"ro"}},
		} {
			s, p := newSnapshots(t), newPod(t)
			mounts, _ := s.container(t, s.layers(t, 2), test.options...)
			root := rootfs(t, m, p, mounts)
			lines := mountsOn(t, root)
			if len(lines) != 1 {
				t.Fatalf("mounts: %q", lines)
			}
			before, after, _ := strings.Cut(lines[0], " - ")
			has(t, strings.Fields(before)[5], test.mount)
			has(t, strings.Fields(after)[2], test.shown)
			if fields := strings.Fields(after); fields[0] != "overlay" || fields[1] != "overlay" {
				t.Errorf("type %s, source %s", fields[0], fields[1])
			}
		}
	})
}

// has checks that each wanted option is in a list. Kernels that spell one differently
// are given as alternatives, "old|new".
func has(t *testing.T, list string, want []string) {
	t.Helper()
	options := strings.Split(list, ",")
	for _, alternatives := range want {
		if !slices.ContainsFunc(strings.Split(alternatives, "|"), func(o string) bool { return slices.Contains(options, o) }) {
			t.Errorf("option %s is not in %s", alternatives, list)
		}
	}
}

// TestReadonly holds that a read-only request leaves the filesystem itself writable: the mount decides.
func TestReadonly(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		mounts, _ := s.container(t, s.layers(t, 2), "nosuid")
		root := target(t)
		req := p.request(mounts, root)
		req.Readonly = true
		must(t, m.Mount(t.Context(), req))
		out := p.try(t, task{Op: "create", Path: filepath.Join(root, "f"), Mode: 0o600})
		if out.Errno != unix.EROFS {
			t.Errorf("create: %v, want EROFS", out.Errno)
		}
		before, after, _ := strings.Cut(mountsOn(t, root)[0], " - ")
		has(t, strings.Fields(before)[5], []string{"ro", "nosuid"})
		has(t, strings.Fields(after)[2], []string{"rw"})
	})
}

// TestView holds a read-only view of several layers: an overlay without an upper directory.
func TestView(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layers(t, 3)
		root := rootfs(t, m, p, []Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + strings.Join(lower, ":")}}})
		wantInside(t, p, filepath.Join(root, "l0"), 0, 0)
		if out := p.try(t, task{Op: "create", Path: filepath.Join(root, "f"), Mode: 0o600}); out.Errno != unix.EROFS {
			t.Errorf("create: %v, want EROFS", out.Errno)
		}
	})
}

// TestHostUserNS holds that a pod without a user namespace gets the same mounts, plain.
func TestHostUserNS(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s := newSnapshots(t)
		for _, layers := range []int{1, 127} {
			lower := s.layers(t, layers)
			must(t, os.Lchown(filepath.Join(lower[0], fmt.Sprintf("l%d", layers-1)), 1000, 1001))
			mounts, upper := s.container(t, lower, "index=off")
			root := rootfs(t, m, nil, mounts)
			wantOwner(t, root, 0, 0)
			wantOwner(t, upper, 0, 0)
			wantOwner(t, filepath.Join(root, fmt.Sprintf("l%d", layers-1)), 1000, 1001)
			write(t, filepath.Join(root, "made"), 0o600)
			wantOwner(t, filepath.Join(upper, "made"), 0, 0)
		}
		bind := rootfs(t, m, nil, []Mount{{Type: "bind", Source: s.layers(t, 1)[0], Options: []string{"ro", "rbind"}}})
		wantOwner(t, filepath.Join(bind, "l0"), 0, 0)
		has(t, strings.Fields(mountsOn(t, bind)[0])[5], []string{"ro"})
		if got := m.Stats(); got.IDMaps != 0 || got.Clones != 0 {
			t.Errorf("%+v, want no idmap", got)
		}
	})
}

// TestRestart holds that a new Mounter needs one more idmap for a pod, and that mounts outlive the old one.
func TestRestart(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layers(t, 4)
		mounts, _ := s.container(t, lower)
		old := rootfs(t, m, p, mounts)
		must(t, m.Close())
		if err := m.Mount(t.Context(), p.request(mounts, target(t))); err == nil {
			t.Error("a closed Mounter mounted")
		}
		p.do(t, task{Op: "create", Path: filepath.Join(old, "still"), Mode: 0o600})

		next := newMounter(t, m.opts.Way)
		for range 2 {
			mounts, _ := s.container(t, lower)
			wantInside(t, p, filepath.Join(rootfs(t, next, p, mounts), "l3"), 0, 0)
		}
		if got := next.Stats(); got.IDMaps != 1 {
			t.Errorf("%+v, want one idmap", got)
		}
		must(t, next.Unmount(t.Context(), old))
	})
}

// TestForget holds that a pod's clones end, its mounts do not, and that the key can be used again.
func TestForget(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layers(t, 4)
		for round := range 2 {
			mounts, _ := s.container(t, lower)
			root := rootfs(t, m, p, mounts)
			m.Forget(p.key)
			m.Forget(p.key)
			m.checkStage(t)
			p.do(t, task{Op: "append", Path: filepath.Join(root, "l1")})
			if got := m.Stats(); got.Clones != 0 || got.IDMaps != uint64(round+1) {
				t.Errorf("round %d: %+v", round, got)
			}
		}
	})
}

// TestParallel mounts and unmounts for several pods at once, forgetting one of them all the time.
func TestParallel(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s := newSnapshots(t)
		pods := []*testPod{newPod(t), newPod(t), newPod(t), nil}
		lower := s.layers(t, 10)
		var mounting errgroup.Group
		type mounted struct {
			pod  *testPod
			root string
		}
		roots := make([]mounted, 20)
		for i := range roots {
			mounts, _ := s.container(t, lower)
			roots[i] = mounted{pods[i%len(pods)], target(t)}
			mounting.Go(func() error { return m.Mount(t.Context(), roots[i].pod.request(mounts, roots[i].root)) })
		}
		must(t, mounting.Wait())
		for _, r := range roots {
			if r.pod != nil {
				wantInside(t, r.pod, filepath.Join(r.root, "l9"), 0, 0)
			} else {
				wantOwner(t, filepath.Join(r.root, "l9"), 0, 0)
			}
			mounting.Go(func() error { return m.Unmount(t.Context(), r.root) })
		}
		must(t, mounting.Wait())
		for _, r := range roots {
			if left := mountsOn(t, r.root); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		}
		if got := m.Stats(); got.IDMaps != 3 || got.Clones != 3 || got.Mounts != 20 || got.Unmounts != 20 {
			t.Errorf("%+v", got)
		}
	})
}

// TestForgetWhileMounting forgets a pod at any moment of its mounts: each succeeds or says so, and no
// clone is lost.
func TestForgetWhileMounting(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		s, p := newSnapshots(t), newPod(t)
		lower := s.layers(t, 3)
		done := make(chan struct{})
		var forgetting errgroup.Group
		forgetting.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
					m.Forget(p.key)
				}
			}
		})
		var mounting errgroup.Group
		mounting.SetLimit(4)
		for range 24 {
			mounts, _ := s.container(t, lower)
			root := target(t)
			mounting.Go(func() error {
				err := m.Mount(t.Context(), p.request(mounts, root))
				if err != nil && !strings.Contains(err.Error(), "forgotten") {
					return err
				}
				return m.Unmount(t.Context(), root)
			})
		}
		err := mounting.Wait()
		close(done)
		must(t, forgetting.Wait())
		must(t, err)
		m.Forget(p.key)
		if n := m.Stats().Clones; n != 0 {
			t.Errorf("%d clones left", n)
		}
	})
}
