package selftest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseExtent(t *testing.T) {
	e, err := ParseExtent("2013265920:131072")
	if want := (Extent{Start: 2013265920, Length: 131072}); err != nil || e != want {
		t.Errorf("ParseExtent = %v, %v; want %v", e, err, want)
	}
	for _, bad := range []string{"", "1", "1:", ":1", "1:0", "a:1", "1:b", "-1:1", "4294967296:1", "1:4294967296", "1:2:3"} {
		if e, err := ParseExtent(bad); err == nil {
			t.Errorf("ParseExtent(%q) takes it as %v", bad, e)
		}
	}
}

func TestKubeletIDs(t *testing.T) {
	for name, tt := range map[string]struct {
		file string
		want Extent
		err  bool
	}{
		"kubelet's line": {"user:100000:65536\nkubelet:65536:7208960\n", Extent{Start: 65536, Length: 7208960}, false},
		"no line":        {"user:100000:65536\nkubelet2:1:2\n", DefaultIDs, false},
		"empty":          {"", DefaultIDs, false},
		"broken line":    {"kubelet:x:y\n", Extent{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "subuid")
			if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := KubeletIDs(path)
			if got != tt.want || (err != nil) != tt.err {
				t.Errorf("KubeletIDs = %v, %v; want %v", got, err, tt.want)
			}
		})
	}
	if got, err := KubeletIDs(filepath.Join(t.TempDir(), "none")); got != DefaultIDs || err != nil {
		t.Errorf("KubeletIDs of a missing file = %v, %v; want the default", got, err)
	}
}

func FuzzParseSubIDs(f *testing.F) {
	f.Add("kubelet:65536:65536\n")
	f.Add("kubelet:4294967295:4294967295")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseSubIDs(strings.NewReader(text))
		if err == nil && (e.Length == 0 || e.Length >= 1<<32) {
			t.Errorf("parseSubIDs(%q) = %+v", text, e)
		}
	})
}

// TestDrawFindsTheOnlyFreeRange wherever it is.
func TestDrawFindsTheOnlyFreeRange(t *testing.T) {
	from := Extent{Start: 3 * idsPerPod, Length: 5*idsPerPod + 1}
	for free := range uint32(5) {
		var used []Extent
		for slot := range uint32(5) {
			if slot != free {
				// A single id in the middle is enough.
				used = append(used, Extent{Start: from.Start + slot*idsPerPod + 77, Length: 1})
			}
		}
		want := Extent{Start: from.Start + free*idsPerPod, Length: idsPerPod}
		if got, err := draw(from, used); got != want || err != nil {
			t.Errorf("draw = %v, %v; want %v", got, err, want)
		}
	}
	all := Extent{Start: 0, Length: 1<<32 - 1}
	if got, err := draw(from, []Extent{all}); err == nil {
		t.Errorf("draw finds %v where all is used", got)
	}
}

func TestMapping(t *testing.T) {
	if e, ok := mapping("0 65536 65536"); !ok || e.Start != 65536 {
		t.Errorf("mapping = %v, %t", e, ok)
	}
	for _, bad := range []string{
		"", "0 65536", "0 65536 65535", "0 65536 131072", "1 65536 65536", "0 65536 65536; 65536 0 1",
		"0 65536 65536 ", "0 065536 65536", "0 4294967296 65536", "x",
	} {
		if e, ok := mapping(bad); ok {
			t.Errorf("mapping(%q) takes it as %v", bad, e)
		}
	}
}
