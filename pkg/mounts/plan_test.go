package mounts

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPlan holds how the mounts of each kind of snapshotter are understood.
func TestPlan(t *testing.T) {
	const dir = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
	for _, test := range []struct {
		name     string
		mounts   []Mount
		readonly bool
		want     plan
	}{
		{
			name: "overlay",
			mounts: []Mount{{Type: "overlay", Source: "overlay", Options: []string{
				"workdir=" + dir + "/3/work", "upperdir=" + dir + "/3/fs", "lowerdir=" + dir + "/2/fs:" + dir + "/1/fs",
				"index=off", "userxattr", "", "defaults", "relatime",
			}}},
			want: plan{
				kind: kindOverlay, fsType: "overlay", source: "overlay",
				lower: []string{dir + "/2/fs", dir + "/1/fs"}, upper: dir + "/3/fs", work: dir + "/3/work",
				params: []param{{key: "index", value: "off"}, {key: "userxattr", flag: true}},
			},
		},
		{
			name:   "overlay view, flags",
			mounts: []Mount{{Type: "overlay", Options: []string{"lowerdir+=/b/", "lowerdir+=/a:b", "nosuid", "ro", "nodev", "dev"}}},
			want:   plan{kind: kindOverlay, fsType: "overlay", lower: []string{"/b", "/a:b"}, flags: flagNoSUID | flagReadonly},
		},
		{
			name:     "overlay with a context",
			mounts:   []Mount{{Type: "overlay", Options: []string{"lowerdir=/a:/b", `context="system_u:object_r:container_file_t:s0:c1,c2"`}}},
			readonly: true,
			want: plan{
				kind: kindOverlay, fsType: "overlay", lower: []string{"/a", "/b"}, readonly: true,
				params: []param{{key: "context", value: `"system_u:object_r:container_file_t:s0:c1,c2"`}},
			},
		},
		{
			name:   "overlay with escapes",
			mounts: []Mount{{Type: "overlay", Options: []string{`lowerdir=/a\:b:/c\\d`, `upperdir=/u\,p`, "workdir=/w"}}},
			want: plan{
				kind: kindOverlay, fsType: "overlay", lower: []string{"/a:b", `/c\d`}, upper: "/u,p", work: "/w",
			},
		},
		{
			name:   "bind",
			mounts: []Mount{{Type: "bind", Source: dir + "/1/fs", Options: []string{"ro", "rbind"}}},
			want:   plan{kind: kindBind, fsType: "bind", source: dir + "/1/fs", recursive: true, flags: flagReadonly},
		},
		{
			name:   "bind by option",
			mounts: []Mount{{Source: "/a", Options: []string{"rw", "bind"}}},
			want:   plan{kind: kindBind, source: "/a"},
		},
		{
			name:   "btrfs",
			mounts: []Mount{{Type: "btrfs", Source: "/dev/vdb", Options: []string{"subvolid=257", "noatime", "sync"}}},
			want: plan{
				kind: kindFilesystem, fsType: "btrfs", source: "/dev/vdb", flags: flagNoAtime | flagSync,
				params: []param{{key: "subvolid", value: "257"}},
			},
		},
		{
			name:   "zfs",
			mounts: []Mount{{Type: "zfs", Source: "tank/containerd/7"}},
			want:   plan{kind: kindFilesystem, fsType: "zfs", source: "tank/containerd/7"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := newPlan(test.mounts, test.readonly)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(plan{}, param{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestUnsupported holds that what cannot be made is refused before anything is done.
func TestUnsupported(t *testing.T) {
	overlay := func(options ...string) []Mount { return []Mount{{Type: "overlay", Options: options}} }
	for name, mounts := range map[string][]Mount{
		"none":             nil,
		"several":          {{Type: "erofs", Source: "/layer.erofs"}, {Type: "overlay", Options: []string{"lowerdir=/a"}}},
		"type missing":     {{Source: "/a"}},
		"sub-directory":    {{Type: "bind", Source: "/a", Target: "b"}},
		"formatted":        {{Type: "format/overlay", Options: []string{"lowerdir=/a"}}},
		"mkfs":             {{Type: "mkfs/ext4", Source: "/image"}},
		"template source":  {{Type: "bind", Source: "{{ mount 0 }}/upper"}},
		"template option":  overlay("lowerdir={{ overlay 0 1 }}"),
		"mount manager":    overlay("lowerdir=/a", "X-containerd.mkdir.path=/b"),
		"fuse":             {{Type: "fuse3.fuse-overlayfs", Source: "overlay"}},
		"loop":             {{Type: "erofs", Source: "/layer.erofs", Options: []string{"ro", "loop"}}},
		"idmapped already": overlay("lowerdir=/a", "uidmap=0:100000:65536"),
		"propagation":      {{Type: "bind", Source: "/a", Options: []string{"rbind", "rshared"}}},
		"remount":          {{Type: "bind", Source: "/a", Options: []string{"remount", "bind"}}},
		"relative bind":    {{Type: "bind", Source: "a"}},
		"no layers":        overlay("upperdir=/u", "workdir=/w"),
		"no work":          overlay("lowerdir=/a", "upperdir=/u"),
		"no upper":         overlay("lowerdir=/a", "workdir=/w"),
		"relative layer":   overlay("lowerdir=a:/b"),
		"empty lowerdir":   overlay("lowerdir="),
		"data-only layers": overlay("lowerdir=/a::/data"),
		"data-only option": overlay("lowerdir+=/a", "datadir+=/data"),
		"appended layers":  overlay("lowerdir=:/a"),
		"trailing colon":   overlay("lowerdir=/a:"),
	} {
		if p, err := newPlan(mounts, false); !errors.Is(err, ErrUnsupportedMount) {
			t.Errorf("%s: %+v, %v, want ErrUnsupportedMount", name, p, err)
		}
	}
}

// FuzzLowerdir holds that a list of layers which is escaped as overlay wants it splits into the same layers, and
// that any other text splits into clean paths or is refused.
func FuzzLowerdir(f *testing.F) {
	f.Add("/a", "/b")
	f.Add(`/a\:b`, `/c\`)
	f.Add("/:", "/a//b/../c")
	f.Fuzz(func(t *testing.T, a, b string) {
		escape := strings.NewReplacer(`\`, `\\`, ":", `\:`)
		if a != "" && b != "" {
			got, err := splitLower(escape.Replace(a) + ":" + escape.Replace(b))
			if want := []string{filepath.Clean(a), filepath.Clean(b)}; err != nil || !cmp.Equal(got, want) {
				t.Errorf("%q and %q split into %q, %v", a, b, got, err)
			}
		}
		got, err := splitLower(a + b)
		if err != nil && !errors.Is(err, ErrUnsupportedMount) {
			t.Errorf("%q: %v", a+b, err)
		}
		if err == nil && len(got) == 0 {
			t.Errorf("%q split into nothing", a+b)
		}
	})
}

// FuzzOption holds that no option breaks the planner.
func FuzzOption(f *testing.F) {
	for _, option := range []string{"lowerdir=/a:/b", "ro", "", "=", "upperdir=", "context=\"", "X-containerd.x", "\\", "bind"} {
		f.Add("overlay", option)
	}
	f.Fuzz(func(t *testing.T, fsType, option string) {
		p, err := newPlan([]Mount{{Type: fsType, Source: "/s", Options: []string{"lowerdir=/l", option}}}, false)
		if err != nil {
			if !errors.Is(err, ErrUnsupportedMount) {
				t.Errorf("%q: %v", option, err)
			}
			return
		}
		if p.kind < kindOverlay || p.kind > kindFilesystem {
			t.Errorf("%q: kind %d", option, p.kind)
		}
		for _, dir := range p.lower {
			if !filepath.IsAbs(dir) {
				t.Errorf("%q: layer %q", option, dir)
			}
		}
	})
}

// TestParam holds the two spellings of an option.
func TestParam(t *testing.T) {
	for _, test := range []struct {
		param           param
		classic, single string
	}{
		{param{key: "volatile", flag: true}, "volatile", ""},
		{param{key: "index", value: "off"}, "index=off", "off"},
		{param{key: "context", value: `"u:r:t:s0:c1,c2"`}, `context="u:r:t:s0:c1,c2"`, "u:r:t:s0:c1,c2"},
		{param{key: "context", value: `"`}, `context="`, `"`},
	} {
		if got := test.param.String(); got != test.classic {
			t.Errorf("mount(2): %s, want %s", got, test.classic)
		}
		if got := test.param.unquoted(); got != test.single {
			t.Errorf("fsconfig: %s, want %s", got, test.single)
		}
	}
}
