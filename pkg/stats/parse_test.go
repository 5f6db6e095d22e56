package stats

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseDeviceCounts(t *testing.T) {
	got := parseDeviceCounts([]byte("8:0 Read 1\n8:16 Write 2\n8:0 Write 3\n8:0 Total 4\nTotal 6\nbad\n8 Read 5\n"))
	want := []deviceCounts{{major: 8, reads: 1, writes: 3}, {major: 8, minor: 16, writes: 2}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(deviceCounts{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParsePressure(t *testing.T) {
	got := parsePressure([]byte("some avg10=84.66 avg60=88.42 avg300=82.99 total=1921348833\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=7\n"))
	want := &Pressure{
		Some: &PressureData{Avg10: 84.66, Avg60: 88.42, Avg300: 82.99, Total: 1921348833000},
		Full: &PressureData{Avg10: 0.5, Total: 7000},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := parsePressure(nil); got != nil {
		t.Errorf("an empty file is %+v", got)
	}
	// Before Linux 5.13 the processor has no "full".
	if got := parsePressure([]byte("some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n")); got == nil || got.Full != nil {
		t.Errorf("without full it is %+v", got)
	}
}

func TestParseOpenFilesLimit(t *testing.T) {
	const head = "Limit                     Soft Limit           Hard Limit           Units     \nMax cpu time              unlimited            unlimited            seconds   \n"
	for line, want := range map[string]uint64{
		"Max open files            1024                 524288               files     \n": 1024,
		"Max open files            unlimited            unlimited            files     \n": Unlimited,
		"Max open files\n": 0,
		"":                 0,
	} {
		if got := parseOpenFilesLimit([]byte(head + line)); got != want {
			t.Errorf("%q: %d, want %d", line, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("some avg10=84.66 avg60=88.42 avg300=82.99 total=1921348833\n")
	f.Add("8:0 Read 1\nTotal 1\n")
	f.Add("Max open files            1024                 524288               files     \n")
	f.Fuzz(func(t *testing.T, text string) {
		data := []byte(text)
		parsePressure(data)
		parseOpenFilesLimit(data)
		if got, lines := len(parseDeviceCounts(data)), strings.Count(text, "\n")+1; got > lines {
			t.Errorf("%d devices in %d lines", got, lines)
		}
	})
}
