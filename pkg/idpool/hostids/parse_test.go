package hostids

import (
	"slices"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

func TestParseIDMap(t *testing.T) {
	for text, want := range map[string][]idpool.Range{
		"":                                   nil,
		"         0          0 4294967295\n": nil, // the host's own
		"         0     131072      65536\n": {{Start: 131072, Length: 65536}},
		"0 1000 1\n1 165536 65536\n":         {{Start: 1000, Length: 1}, {Start: 165536, Length: 65536}},
	} {
		got, err := parseIDMap([]byte(text))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("parseIDMap(%q) gives %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"0 0", "a b c", "0 0 4294967296", "-1 0 1"} {
		if got, err := parseIDMap([]byte(text)); err == nil {
			t.Errorf("parseIDMap(%q) gives %v and no error", text, got)
		}
	}
}

const status = "Name:\tsleep\nUmask:\t0022\nState:\tS (sleeping)\nUid:\t131072\t131072\t0\t7\nGid:\t131073\t131073\t131073\t131073\nGroups:\t5 131074 \n"

func TestParseStatus(t *testing.T) {
	got, err := parseStatus([]byte(status))
	if err != nil || got.name != "sleep" || got.dead ||
		!slices.Equal(got.uids, []uint32{131072, 0, 7}) || !slices.Equal(got.gids, []uint32{131073, 5, 131074}) {
		t.Errorf("parseStatus gives %+v, %v", got, err)
	}
	if got, err := parseStatus([]byte(strings.Replace(status, "S (sleeping)", "Z (zombie)", 1))); err != nil || !got.dead {
		t.Errorf("a zombie: %+v, %v, want it dead", got, err)
	}
	for _, text := range []string{"", "Name:\tx\n", strings.Replace(status, "131072", "x", 1), strings.Replace(status, "131074", "-1", 1)} {
		if got, err := parseStatus([]byte(text)); err == nil {
			t.Errorf("parseStatus(%q) gives %+v and no error", text, got)
		}
	}
}

func FuzzParseIDMap(f *testing.F) {
	f.Add([]byte("0 131072 65536\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		ranges, err := parseIDMap(text)
		if err != nil && ranges != nil {
			t.Errorf("%q gives %v beside %v", text, ranges, err)
		}
		for _, r := range ranges {
			if r.Length >= wholeHost {
				t.Errorf("%q gives %v, which is the host's own", text, r)
			}
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(status))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseStatus(text)
		if err == nil && (len(c.uids) == 0 || len(c.gids) == 0) {
			t.Errorf("%q gives %+v without ids", text, c)
		}
	})
}
