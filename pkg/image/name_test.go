package image

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	hexA = "aaaa000000000000000000000000000000000000000000000000000000000000"
	hexB = "aaab000000000000000000000000000000000000000000000000000000000000"
	hexC = "cccc000000000000000000000000000000000000000000000000000000000000"
)

func TestNormalize(t *testing.T) {
	for ref, want := range map[string]string{
		"busybox":                             "docker.io/library/busybox:latest",
		"me/busybox:1":                        "docker.io/me/busybox:1",
		"registry.example/a/b":                "registry.example/a/b:latest",
		"localhost:5000/a":                    "localhost:5000/a:latest",
		"busybox@sha256:" + hexA:              "docker.io/library/busybox@sha256:" + hexA,
		"registry.example/a:1@sha256:" + hexA: "registry.example/a@sha256:" + hexA,
	} {
		if got, err := Normalize(ref); err != nil || got != want {
			t.Errorf("Normalize(%q) = %q, %v, want %q", ref, got, err, want)
		}
	}
	for _, ref := range []string{"", " ", "me/Upper", "a:b:c", "a@sha256:short", hexA, "a\nb", "a\x00", "../a", strings.Repeat("a", 300)} {
		if got, err := Normalize(ref); !errdefs.IsInvalidArgument(err) {
			t.Errorf("Normalize(%q) = %q, %v, want invalid argument", ref, got, err)
		}
	}
}

func TestRecordNames(t *testing.T) {
	const id, target = "sha256:" + hexA, digest.Digest("sha256:" + hexB)
	for ref, want := range map[string][]string{
		"registry.example/a:1":              {id, "registry.example/a@" + string(target), "registry.example/a:1"},
		"registry.example/a@sha256:" + hexB: {id, "registry.example/a@" + string(target)},
	} {
		got, err := RecordNames(ref, target, id)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("RecordNames(%q) = %q, %v, want %q", ref, got, err, want)
		}
	}
	if _, err := RecordNames("not a reference", target, id); !errdefs.IsInvalidArgument(err) {
		t.Errorf("names of a malformed reference: %v", err)
	}
	if _, err := RecordNames("a", "no digest", id); err == nil {
		t.Error("names with a malformed digest")
	}
}

func TestSplitName(t *testing.T) {
	for name, want := range map[string][2]string{
		"docker.io/library/busybox:latest":    {"docker.io/library/busybox:latest", ""},
		"registry.example/a@sha256:" + hexA:   {"", "registry.example/a@sha256:" + hexA},
		"registry.example/a:1@sha256:" + hexA: {"", "registry.example/a:1@sha256:" + hexA},
		"sha256:" + hexA:                      {},
		hexA:                                  {},
		"registry.example/untagged":           {},
		"overlayfs@sha256 is no name":         {},
	} {
		if tag, byDigest := SplitName(name); tag != want[0] || byDigest != want[1] {
			t.Errorf("SplitName(%q) = %q, %q, want %q", name, tag, byDigest, want)
		}
	}
}

func TestFind(t *testing.T) {
	images := []Info{
		{ID: "sha256:" + hexA, RepoTags: []string{"docker.io/library/busybox:latest", "registry.example/a:1"}},
		{ID: "sha256:" + hexB, RepoDigests: []string{"registry.example/a@sha256:" + hexC}},
		{ID: "sha256:" + hexC, RepoTags: []string{"docker.io/library/cccc:latest", "docker.io/library/aaab:latest"}},
	}
	for ref, want := range map[string]int{
		"sha256:" + hexA:                    0,
		hexB:                                1,
		"sha256:aaab":                       1,
		"aaaa":                              0,
		"busybox":                           0,
		"registry.example/a:1":              0,
		"registry.example/a@sha256:" + hexC: 1,
		"aaab":                              2, // a name goes before a prefix, as in containerd's CRI plugin
		"cccc":                              2,
	} {
		if got, err := Find(images, ref); err != nil || got != want {
			t.Errorf("Find(%q) = %d, %v, want %d", ref, got, err, want)
		}
	}
	for ref, is := range map[string]func(error) bool{
		"aaa":                     errdefs.IsInvalidArgument, // short of two
		"sha256:":                 errdefs.IsNotFound,
		"":                        errdefs.IsNotFound,
		"dddd":                    errdefs.IsNotFound,
		"registry.example/a":      errdefs.IsNotFound,
		"sha256:" + hexA + "0000": errdefs.IsNotFound,
		"AAAA":                    errdefs.IsNotFound,
	} {
		if got, err := Find(images, ref); !is(err) {
			t.Errorf("Find(%q) = %d, %v", ref, got, err)
		}
	}
}

func TestParseUser(t *testing.T) {
	for user, want := range map[string]struct {
		uid  int64
		name string
	}{
		"": {-1, ""}, "0": {0, ""}, "1000:50": {1000, ""}, "1000:staff": {1000, ""},
		"www": {-1, "www"}, "www:www": {-1, "www"}, ":50": {-1, ""}, "99999999999999999999": {-1, "99999999999999999999"},
	} {
		got := ParseUser(user)
		if got.Name != want.name || (got.UID != nil) != (want.uid >= 0) || got.UID != nil && *got.UID != want.uid {
			t.Errorf("ParseUser(%q) = %+v, want %+v", user, got, want)
		}
	}
}

func FuzzFind(f *testing.F) {
	for _, seed := range []string{"busybox", "sha256:" + hexA, "aaa", "a@b:c", ""} {
		f.Add(seed)
	}
	images := []Info{{ID: "sha256:" + hexA, RepoTags: []string{"docker.io/library/busybox:latest"}}, {ID: "sha256:" + hexB}}
	f.Fuzz(func(t *testing.T, ref string) {
		i, err := Find(images, ref)
		if err == nil && (i < 0 || i >= len(images)) {
			t.Errorf("Find(%q) = %d without an error", ref, i)
		}
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) {
			t.Errorf("Find(%q): %v has no class", ref, err)
		}
		_, _ = SplitName(ref)
	})
}

// FuzzNormalize holds that a full name stays as it is, and that the names under which an image is kept are read as
// what they are.
func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{"busybox", "localhost:5000/a/b:c", "a@sha256:" + hexA, "a:b@sha256:" + hexA, "UPPER", "a//b", "a:", "", "\x00", "[::1]:5000/a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		full, err := Normalize(ref)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("Normalize(%q): %v is no InvalidArgument", ref, err)
			}
			return
		}
		if again, err := Normalize(full); err != nil || again != full {
			t.Errorf("Normalize(%q) = %q, and that is %q, %v", ref, full, again, err)
		}
		id := "sha256:" + hexA
		names, err := RecordNames(full, digest.Digest(id), id)
		if err != nil || names[0] != id {
			t.Fatalf("RecordNames(%q) = %q, %v", full, names, err)
		}
		for _, name := range names[1:] {
			if tag, byDigest := SplitName(name); (tag == name) == (byDigest == name) {
				t.Errorf("SplitName(%q) = %q, %q", name, tag, byDigest)
			}
		}
	})
}
