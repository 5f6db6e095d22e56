package mounts

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestLayout holds which directories are cloned.
func TestLayout(t *testing.T) {
	for _, test := range []struct {
		name           string
		lower, anchors []place
		want           []layer
	}{
		{
			name:    "one image",
			lower:   []place{{"/s/2/fs", 1}, {"/s/1/fs", 1}},
			anchors: []place{{"/s/3/fs", 1}, {"/s/3/work", 1}},
			want:    []layer{{place{"/s", 1}, "2/fs"}, {place{"/s", 1}, "1/fs"}},
		},
		{
			name:    "one layer has the same root as many",
			lower:   []place{{"/s/1/fs", 1}},
			anchors: []place{{"/s/3/fs", 1}, {"/s/3/work", 1}},
			want:    []layer{{place{"/s", 1}, "1/fs"}},
		},
		{
			name:  "view of layers whose numbers share digits",
			lower: []place{{"/s/10/fs", 1}, {"/s/1/fs", 1}},
			want:  []layer{{place{"/s", 1}, "10/fs"}, {place{"/s", 1}, "1/fs"}},
		},
		{
			name:    "layers that are mounts of their own",
			lower:   []place{{"/s/2/fs", 7}, {"/s/1/fs", 1}},
			anchors: []place{{"/s/3/fs", 1}},
			want:    []layer{{place{"/s/2/fs", 7}, "."}, {place{"/s", 1}, "1/fs"}},
		},
		{
			name:    "upper directory on another filesystem",
			lower:   []place{{"/ro/2", 1}, {"/ro/1", 1}},
			anchors: []place{{"/rw/3", 2}},
			want:    []layer{{place{"/ro", 1}, "2"}, {place{"/ro", 1}, "1"}},
		},
		{
			name:  "nothing in common",
			lower: []place{{"/a/1", 1}, {"/b/1", 1}},
			want:  []layer{{place{"/", 1}, "a/1"}, {place{"/", 1}, "b/1"}},
		},
		{
			name:    "one inside another",
			lower:   []place{{"/a", 1}},
			anchors: []place{{"/a/b", 1}},
			want:    []layer{{place{"/a", 1}, "."}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := layout(test.lower, test.anchors)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(layer{}, place{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestLayoutProperties holds that every layer is found again below its root, that roots are in the
// layer's own mount, one for each, and that no deeper directory would do.
func TestLayoutProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.Custom(func(t *rapid.T) string {
			return "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "ab", "b"}), 1, 4).Draw(t, "names"), "/")
		})
		lower := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) place {
			return place{path.Draw(t, "path"), rapid.Uint64Range(1, 3).Draw(t, "mount")}
		}), 1, 6).Draw(t, "lower")
		inMount := make(map[uint64][]layer)
		for i, l := range layout(lower, nil) {
			if back := filepath.Join(l.root.path, l.rel); back != lower[i].path || l.root.mount != lower[i].mount {
				t.Fatalf("%v is found as %v", lower[i], l)
			}
			inMount[l.root.mount] = append(inMount[l.root.mount], l)
		}
		for mount, layers := range inMount {
			first := make(map[string]bool)
			for _, l := range layers {
				if l.root != layers[0].root {
					t.Fatalf("mount %d has the roots %v and %v", mount, l.root, layers[0].root)
				}
				name, _, _ := strings.Cut(l.rel, "/")
				first[name] = true
			}
			if len(first) == 1 && !first["."] {
				t.Fatalf("mount %d could have a deeper root than %s: %v", mount, layers[0].root.path, layers)
			}
		}
	})
}

// TestShiftedOwner holds the owner of the root directory.
func TestShiftedOwner(t *testing.T) {
	m := Mapping{HostID: 2013265920, Length: 65536}
	for _, test := range []struct {
		disk, seen uint32
		mapping    Mapping
		want       uint32
		err        error
	}{
		{0, m.HostID, m, m.HostID, nil},
		{65535, m.HostID + 65535, m, m.HostID + 65535, nil},
		{65536, 65534, m, m.HostID + 65534, nil},
		{4294967295, 65534, m, m.HostID + 65534, nil},
		{0, m.HostID + 65536, m, 0, ErrMapping},
		{0, 65534, m, 0, ErrMapping},
		{1000, 65534, Mapping{HostID: 70000, Length: 10}, 70009, nil}, // a range without overflow id
	} {
		got, err := shiftedOwner(test.disk, test.seen, test.mapping)
		if got != test.want || fmt.Sprint(err == nil) != fmt.Sprint(test.err == nil) {
			t.Errorf("%d seen as %d: %d, %v, want %d, %v", test.disk, test.seen, got, err, test.want, test.err)
		}
	}
}

// TestNeedsOwner holds when the upper directory is given an owner.
func TestNeedsOwner(t *testing.T) {
	m := Mapping{HostID: 100000, Length: 65536}
	for _, test := range []struct {
		have, disk uint32
		mapping    Mapping
		want       bool
	}{
		{0, 0, m, true},
		{1000, 1000, m, true},
		{0, 1000, m, true},
		{100000, 0, m, false},
		{165535, 0, m, false},
		{165536, 0, m, true},
		{99999, 0, m, true},
		{1000, 1000, Mapping{HostID: 1, Length: 65536}, true}, // a range over the host's own ids
		{4294967295, 0, Mapping{HostID: 4294901760, Length: 65536}, false},
	} {
		if got := needsOwner(test.have, test.disk, test.mapping); got != test.want {
			t.Errorf("owner %d, %d on disk, %+v: %v", test.have, test.disk, test.mapping, got)
		}
	}
}

// TestRemedy holds that every refusal tells what can be done.
func TestRemedy(t *testing.T) {
	for fsType, says := range map[string]string{
		"nfs4": "no kernel", "overlay": "merged", "tmpfs": "6.3", "fuse.sshfs": "6.12", "virtiofs": "6.12",
		"ceph": "6.7", "hugetlbfs": "6.9", "9p": "ext4",
	} {
		if got := remedy(fsType); !strings.Contains(got, says) || !strings.Contains(got, "hostUsers: true") {
			t.Errorf("%s: %s", fsType, got)
		}
	}
}
