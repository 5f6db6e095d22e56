package subid

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

var good = idpool.Range{Start: 2013265920, Length: 100532224}

func TestParseFile(t *testing.T) {
	lines, err := ParseFile("/etc/subuid", strings.NewReader(strings.Join([]string{
		"# comment", "", "root:100000:65536", "  kubelet:2013265920:100532224  ", "1000:200000:1", "kubelet:5:6",
	}, "\n")))
	want := []Line{
		{3, "root", idpool.Range{Start: 100000, Length: 65536}},
		{4, "kubelet", good},
		{5, "1000", idpool.Range{Start: 200000, Length: 1}},
		{6, "kubelet", idpool.Range{Start: 5, Length: 6}},
	}
	if err != nil || !slices.Equal(lines, want) {
		t.Errorf("lines %v, %v", lines, err)
	}
	if got := Of(lines, "kubelet", "1000"); len(got) != 3 || got[1].Start != 200000 {
		t.Errorf("Of = %v", got)
	}
}

func TestParseFileNamesBadLines(t *testing.T) {
	for _, bad := range []string{
		"kubelet", "kubelet:1", "kubelet:1:2:3", ":1:2", "kubelet::2", "kubelet:1:", "kubelet:-1:2", "kubelet:1:0",
		"kubelet:1:4294967296", "kubelet:4294967295:2", "kubelet 1 2", "kubelet:1 :2",
	} {
		lines, err := ParseFile("/etc/subgid", strings.NewReader("a:1:2\n"+bad+"\nb:3:4\n"))
		var lineErr *LineError
		if !errors.As(err, &lineErr) || lineErr.Number != 2 || lineErr.Text != bad || !strings.Contains(err.Error(), "/etc/subgid line 2") {
			t.Errorf("%q: %v", bad, err)
		}
		if len(lines) != 2 || lines[1].Owner != "b" || lines[1].Number != 3 {
			t.Errorf("%q: good lines %v", bad, lines)
		}
	}
	_, err := ParseFile("/etc/subuid", iotest.ErrReader(errors.ErrUnsupported))
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "/etc/subuid") {
		t.Errorf("a read error: %v", err)
	}
}

func TestParseGetsubids(t *testing.T) {
	lines, err := ParseGetsubids("getsubids kubelet", "0: kubelet 2013265920 100532224\n")
	if err != nil || !slices.Equal(lines, []Line{{1, "kubelet", good}}) {
		t.Errorf("lines %v, %v", lines, err)
	}
	if lines, err := ParseGetsubids("x", "0: kubelet 1 2\n1: kubelet 3 4\n"); err != nil || len(lines) != 2 || lines[1].Number != 2 {
		t.Errorf("two lines: %v, %v", lines, err)
	}
	if lines, err := ParseGetsubids("x", ""); err != nil || len(lines) != 0 {
		t.Errorf("nothing: %v, %v", lines, err)
	}
	for _, bad := range []string{
		"Error fetching ranges", "0: kubelet 1", "0: kubelet 1 2 3", "0 kubelet 1 2", "0: kubelet 0x1 2",
		"0: kubelet 1 -2", "0: kubelet 1 4294967296", "0: kubelet 65536 4294967295", "0: kubelet 1:2 3",
	} {
		lines, err := ParseGetsubids("getsubids -g kubelet", "\n"+bad+"\n")
		var lineErr *LineError
		if lines != nil || !errors.As(err, &lineErr) || lineErr.Number != 2 || lineErr.Input != "getsubids -g kubelet" {
			t.Errorf("%q: %v, %v", bad, lines, err)
		}
	}
}

func TestKubelet(t *testing.T) {
	const unit = idpool.Unit
	one := func(start, length uint32) []idpool.Range { return []idpool.Range{{Start: start, Length: length}} }
	tests := []struct {
		name       string
		uids, gids []idpool.Range
		idsPerPod  uint32
		want       error
	}{
		{"the default", one(good.Start, good.Length), one(good.Start, good.Length), unit, nil},
		{"everything", one(unit, 1<<32-unit), one(unit, 1<<32-unit), unit, nil},
		{"no uids", nil, one(unit, unit), unit, ErrNone},
		{"no gids", one(unit, unit), nil, unit, ErrNone},
		{"two", append(one(unit, unit), good), one(unit, unit), unit, ErrSeveral},
		{"other gids", one(unit, unit), one(2*unit, unit), unit, ErrDiffer},
		{"not aligned", one(100000, unit), one(100000, unit), unit, ErrUnfit},
		{"a part of a range", one(unit, unit+1), one(unit, unit+1), unit, ErrUnfit},
		{"the host's", one(0, unit), one(0, unit), unit, ErrUnfit},
		{"below idsPerPod", one(unit, 4*unit), one(unit, 4*unit), 2 * unit, ErrUnfit},
		{"not aligned to idsPerPod", one(3*unit, 4*unit), one(3*unit, 4*unit), 2 * unit, ErrUnfit},
		{"idsPerPod of no use", one(unit, unit), one(unit, unit), unit + 1, ErrUnfit},
		{"idsPerPod 0", one(unit, unit), one(unit, unit), 0, ErrUnfit},
	}
	for _, tt := range tests {
		r, err := Kubelet(tt.uids, tt.gids, tt.idsPerPod)
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || (err == nil && r != tt.uids[0]) {
			t.Errorf("%s: %v, %v, want %v", tt.name, r, err, tt.want)
		}
	}
	if r := Unconfigured(unit); r.Start != unit || r.End() != 1<<32 {
		t.Errorf("Unconfigured = %s", r)
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add("kubelet:2013265920:100532224\n# x\nroot:1:2")
	f.Add("a:1:2:3\n\n:::\n\x00:1:1")
	f.Fuzz(func(t *testing.T, in string) {
		lines, err := ParseFile("subuid", strings.NewReader(in))
		if n := strings.Count(in, "\n") + 1; len(lines) > n || (err != nil && len(lines) == n) {
			t.Fatalf("%d lines out of %q", len(lines), in)
		}
		for _, l := range lines {
			if l.Owner == "" || l.Range.Length == 0 || l.Range.End() > 1<<32 || l.Number < 1 {
				t.Fatalf("%q yields %+v", in, l)
			}
		}
	})
}

func FuzzParseGetsubids(f *testing.F) {
	f.Add("0: kubelet 2013265920 100532224\n")
	f.Add("0: kubelet 65536 4294967295\n1: a b c")
	f.Fuzz(func(t *testing.T, in string) {
		lines, err := ParseGetsubids("getsubids", in)
		var lineErr *LineError
		if err != nil && (!errors.As(err, &lineErr) || lines != nil) {
			t.Fatalf("%q: %v, %v", in, lines, err)
		}
		for _, l := range lines {
			if l.Range.Length == 0 || l.Range.End() > 1<<32 {
				t.Fatalf("%q yields %+v", in, l)
			}
		}
	})
}
