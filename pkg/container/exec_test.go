package container

import (
	"bytes"
	"testing"
)

func TestFit(t *testing.T) {
	for _, tc := range []struct{ a, b, wantA, wantB int }{
		{0, 0, 0, 0},
		{10, 0, 10, 0},
		{5, 5, 5, 5},
		{30, 0, 10, 0},
		{30, 3, 7, 3},
		{3, 30, 3, 7},
		{30, 30, 5, 5},
	} {
		a, b := fit(bytes.Repeat([]byte("a"), tc.a), bytes.Repeat([]byte("b"), tc.b), 10)
		if len(a) != tc.wantA || len(b) != tc.wantB {
			t.Errorf("%d and %d bytes became %d and %d, want %d and %d", tc.a, tc.b, len(a), len(b), tc.wantA, tc.wantB)
		}
	}
}
