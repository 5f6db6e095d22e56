package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/userns-shim/userns-shim/internal/admin"
)

func TestHostIDs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(file)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t) // who runs the test
	own := []hostID{{st.Uid, "uid"}, {st.Gid, "gid"}}
	for arg, want := range map[string][]hostID{
		"2113798144":                       {{2113798144, "id"}},
		"0":                                {{0, "id"}},
		file:                               own,
		"pid:" + strconv.Itoa(os.Getpid()): own,
	} {
		if got, err := hostIDs(arg); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", arg, got, err, want)
		}
	}
	for _, arg := range []string{"", "x", "-1", "4294967296", "pid:", "pid:-1", "pid:x"} {
		var usage usageError
		if got, err := hostIDs(arg); !errors.As(err, &usage) {
			t.Errorf("%q: %v, %v, want a usage error", arg, got, err)
		}
	}
	for _, arg := range []string{"/no/such/file", "pid:2147483647"} {
		if got, err := hostIDs(arg); err == nil {
			t.Errorf("%q: %v and no error", arg, got)
		}
	}
}

func TestWho(t *testing.T) {
	ranges := []admin.Range{{Start: 65536, Length: 65536}, {Start: 0xFFFF0000, Length: 0xFFFF}}
	answers, known := who([]hostID{{65535, "uid"}, {65536, "uid"}, {131071, "gid"}, {131072, "gid"}, {0xFFFFFFFE, "id"}}, ranges, admin.PoolStatus{})
	var inside []uint32
	for _, a := range answers {
		if a.Range != nil {
			inside = append(inside, a.InsideID)
		}
	}
	if !known || !slices.Equal(inside, []uint32{0, 65535, 65534}) {
		t.Errorf("answers %+v, known %t", answers, known)
	}
	if _, known := who([]hostID{{65535, "uid"}}, ranges, admin.PoolStatus{}); known {
		t.Error("an id of the host is known")
	}
	status := admin.PoolStatus{Segments: []admin.Segment{{Name: "pool", Extents: []admin.Extent{{Start: 65536, Length: 4 * 65536}}}, {Name: "external"}}}
	var out bytes.Buffer
	table := tabwriter.NewWriter(&out, 0, 0, 1, ' ', 0)
	answers, known = who([]hostID{{131072, "uid"}, {5, "gid"}}, ranges, status)
	whoTable(table, answers)
	if err := table.Flush(); err != nil || known {
		t.Errorf("%v; a free id is known: %t", err, known)
	}
	if got := out.String(); !strings.Contains(got, "free, in the segment pool -\n") || !strings.Contains(got, "not in the pool") {
		t.Errorf("of a free id and the host's:\n%s", got)
	}
}

func TestBar(t *testing.T) {
	for want, s := range map[string]admin.Segment{
		"-":                             {},
		"[....................] 0.0%":   {Capacity: 10, Free: 10},
		"[#...................] 0.1%":   {Capacity: 1000, Free: 999},
		"[##########..........] 50.0%":  {Capacity: 10, Free: 5},
		"[###################.] 99.9%":  {Capacity: 1000, Free: 1},
		"[####################] 100.0%": {Capacity: 10},
	} {
		if got := bar(s); got != want {
			t.Errorf("%+v gives %s, want %s", s, got, want)
		}
	}
}

// TestRangeTableShowsTraces: the help of release sends there.
func TestRangeTableShowsTraces(t *testing.T) {
	var out bytes.Buffer
	rangeTable(&out, []admin.Range{
		{Start: 65536, Length: 65536, State: "quarantined", Segment: "pool", Pod: "uid", Since: time.Now(), Traces: []string{"namespace", "layers"}},
		{Start: 131072, Length: 65536, State: "reserved", Segment: "pool", Reservation: "agent", Since: time.Now()},
	})
	for _, want := range []string{"65536:65536\tquarantined\tpool\tuid\t0s ago\tnamespace,layers\n", "\treserved as agent\t0s ago\t-\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
}
