package idpool

import (
	"errors"
	"testing"
)

func TestRangeArithmetic(t *testing.T) {
	last := Range{Start: 0xFFFF0000, Length: Unit}
	if got := last.End(); got != 1<<32 {
		t.Errorf("End of %s = %d, want 1<<32", last, got)
	}
	if !last.Contains(0xFFFFFFFF) || last.Contains(0xFFFEFFFF) {
		t.Errorf("%s contains the wrong ids", last)
	}
	tests := []struct {
		a, b                 Range
		overlaps, aContainsB bool
	}{
		{Range{10, 10}, Range{10, 10}, true, true},
		{Range{10, 10}, Range{20, 10}, false, false},
		{Range{10, 10}, Range{0, 10}, false, false},
		{Range{10, 10}, Range{19, 1}, true, true},
		{Range{10, 10}, Range{19, 2}, true, false},
		{Range{10, 10}, Range{0, 100}, true, false},
		{Range{10, 10}, Range{15, 0}, false, false},
		{Range{0xFFFFFFF0, 16}, Range{0, 16}, false, false},
		{Range{0xFFFFFFF0, 16}, Range{0xFFFFFFFF, 1}, true, true},
	}
	for _, tt := range tests {
		if got := tt.a.Overlaps(tt.b); got != tt.overlaps {
			t.Errorf("%s overlaps %s = %v", tt.a, tt.b, got)
		}
		if got := tt.b.Overlaps(tt.a); got != tt.overlaps {
			t.Errorf("%s overlaps %s = %v", tt.b, tt.a, got)
		}
		if got := tt.a.ContainsRange(tt.b); got != tt.aContainsB {
			t.Errorf("%s contains %s = %v", tt.a, tt.b, got)
		}
	}
}

func TestRangeProperties(t *testing.T) {
	tests := []struct {
		r                 Range
		aligned, mappable bool
	}{
		{Range{65536, 65536}, true, true},
		{Range{65536, 131072}, true, true},
		{Range{65536, 65535}, false, true},
		{Range{100000, 65536}, false, true},
		{Range{65536, 0}, true, false},
		{Range{0xFFFF0000, 65536}, true, false},
		{Range{0xFFFF0000, 65535}, false, true},
		{Range{0, 0xFFFFFFFF}, false, true},
	}
	for _, tt := range tests {
		if tt.r.Length > 0 && tt.r.Aligned() != tt.aligned {
			t.Errorf("%s aligned = %v", tt.r, !tt.aligned)
		}
		if tt.r.Mappable() != tt.mappable {
			t.Errorf("%s mappable = %v", tt.r, !tt.mappable)
		}
	}
}

func TestParseRange(t *testing.T) {
	for in, want := range map[string]Range{
		"2113798144:33554432": {2113798144, 33554432},
		"0:1":                 {0, 1},
		"4294967295:1":        {4294967295, 1},
		"0:4294967295":        {0, 4294967295},
	} {
		got, err := ParseRange(in)
		if err != nil || got != want || got.String() != in {
			t.Errorf("ParseRange(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", ":", "1", "1:", ":1", "1:0", "-1:5", "+1:5", "1:+5", " 1:5", "1:5 ", "1:5:6", "0x1:5", "1_0:5",
		"4294967296:1", "1:4294967296", "4294967295:2", "1:4294967295:", "99999999999999999999:1", "१:1",
	} {
		if got, err := ParseRange(in); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseRange(%q) = %v, %v, want ErrInvalid", in, got, err)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, seed := range []string{"2113798144:33554432", "0:4294967295", "4294967295:1", "1:-1", "::", "1:2:3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r, err := ParseRange(in)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || r != (Range{}) {
				t.Fatalf("ParseRange(%q) = %v, %v", in, r, err)
			}
			return
		}
		if r.Length == 0 || r.End() > 1<<32 {
			t.Fatalf("ParseRange(%q) lets %v through", in, r)
		}
		again, err := ParseRange(r.String())
		if err != nil || again != r {
			t.Fatalf("%q does not come back: %v, %v", in, again, err)
		}
	})
}
