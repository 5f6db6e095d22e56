package statusz

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestHistoryKeepsTheLatest(t *testing.T) {
	h := NewHistory(3)
	if got := h.Latest(); len(got) != 0 {
		t.Errorf("at first %v", got)
	}
	for i := range 8 {
		h.Add(Event{Pod: strconv.Itoa(i)})
		var pods string
		for _, e := range h.Latest() {
			pods += e.Pod
		}
		if want := "76543210"[7-i : 7-i+min(i+1, 3)]; pods != want {
			t.Errorf("after %d events it has %s, want %s", i+1, pods, want)
		}
	}
}

func TestHistoryShortensDetails(t *testing.T) {
	h := NewHistory(1)
	h.Add(Event{Detail: "a" + strings.Repeat("é", 1000)})
	got := h.Latest()[0].Detail
	if len(got) > maxDetail+len("…") || !utf8.ValidString(got) || !strings.HasSuffix(got, "é…") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-8:])
	}
}
