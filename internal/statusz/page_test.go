package statusz

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// get renders a page, and parses it.
func get(t *testing.T, pool Pool, events ...Event) (*html.Node, *httptest.ResponseRecorder) {
	t.Helper()
	history := NewHistory(256)
	for _, e := range events {
		history.Add(e)
	}
	h := New(Options{Version: "v1", Started: time.Now().Add(-time.Hour), Pool: func() Pool { return pool }, History: history})
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/statusz", nil))
	root, err := html.Parse(strings.NewReader(answer.Body.String()))
	if err != nil || answer.Code != http.StatusOK {
		t.Fatalf("%d, %v", answer.Code, err)
	}
	return root, answer
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// elements returns those of a name that keep accepts.
func elements(root *html.Node, name string, keep func(*html.Node) bool) []*html.Node {
	var found []*html.Node
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == name && keep(n) {
			found = append(found, n)
		}
	}
	return found
}

func anyElement(*html.Node) bool { return true }

func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

// squares are the blocks of a segment's map, as "class title".
func squares(root *html.Node) []string {
	var found []string
	for _, div := range elements(root, "div", func(n *html.Node) bool { return attribute(n, "class") == "map" }) {
		for _, i := range elements(div, "i", anyElement) {
			found = append(found, attribute(i, "class")+" "+attribute(i, "title"))
		}
	}
	return found
}

func TestPageShowsThePoolAsAMap(t *testing.T) {
	root, answer := get(t, Pool{Segments: []Segment{
		{
			Name: "pool", Extents: []Extent{{10 * unit, 2 * unit}, {4 * unit, 3 * unit}}, Capacity: 5, Free: 2, Allocated: 1, EmptyIn: "about 3h",
			Ranges: []Range{
				{Extent{4 * unit, unit}, "allocated", "default/a"},
				{Extent{5*unit + 7, unit}, "reserved", "reserved as odd"}, // touches two
				{Extent{10 * unit, unit}, "resting", "b"},
				{Extent{90 * unit, unit}, "allocated", "elsewhere"},
			},
		},
		{Name: "external", Allocated: 1, Ranges: []Range{{Extent{90 * unit, unit}, "allocated", "default/c"}}},
	}}, Event{At: time.Unix(0, 0), Kind: Allocated, Namespace: "default", Pod: "a", Range: "4:5"}, Event{Kind: Failed, Namespace: "default", Pod: "z", Detail: "exhausted"})
	want := []string{
		"allocated 262144:65536 allocated default/a", "reserved 327680:65536 reserved reserved as odd",
		"reserved 393216:65536 reserved reserved as odd", "resting 655360:65536 resting b", " ",
	}
	if got := squares(root); !slices.Equal(got, want) {
		t.Errorf("the map is %q, want %q", got, want)
	}
	words := text(root)
	for _, want := range []string{"userns-shim v1", "1h0m0s", "about 3h", "5898240:65536", "default/c", "1970-01-01T00:00:00Z", "default/a", "default/z", "exhausted"} {
		if !strings.Contains(words, want) {
			t.Errorf("the page does not say %q:\n%s", want, words)
		}
	}
	if strings.Index(words, "default/z") > strings.LastIndex(words, "default/a") {
		t.Error("the latest event is not the first")
	}
	if got := answer.Header().Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("Content-Type is %s", got)
	}
	if got := answer.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none';") {
		t.Errorf("Content-Security-Policy is %s", got)
	}
}

// TestLeakedRangesStandOut: a leak has its own color over what the ledger says of the range, and both are named.
func TestLeakedRangesStandOut(t *testing.T) {
	root, _ := get(t, Pool{Segments: []Segment{
		{Name: "pool", Extents: []Extent{{unit, 3 * unit}}, Capacity: 3, Leak: 2, Ranges: []Range{
			{Extent{unit, unit}, "allocated", "default/a"}, {Extent{unit, unit}, "leaked", "two pods share it"}, {Extent{2 * unit, unit}, "leaked", "pinned"},
		}},
		{Name: "external", Ranges: []Range{{Extent{90 * unit, unit}, "leaked", "elsewhere"}}},
	}})
	want := []string{"leaked 65536:65536 leaked allocated default/a; two pods share it", "leaked 131072:65536 leaked pinned", " "}
	if got := squares(root); !slices.Equal(got, want) {
		t.Errorf("the map is %q, want %q", got, want)
	}
	if words := text(root); !strings.Contains(words, "elsewhere") {
		t.Errorf("the leak outside of the extents is not listed:\n%s", words)
	}
	for _, state := range states[1:] {
		if len(elements(root, "i", func(n *html.Node) bool { return attribute(n, "class") == state })) == 0 || !strings.Contains(pageText, "i."+state+" {") {
			t.Errorf("the state %s is not in the key, or has no color", state)
		}
	}
}

// TestPageRunsNothing: whatever a pod or a reservation is called, its name is text, and nothing is loaded from anywhere.
func TestPageRunsNothing(t *testing.T) {
	for _, name := range []string{
		`<script>alert(1)</script>`, `"><script>alert(1)</script>`, `' onmouseover=alert(1) x='`, `" onmouseover="alert(1)`,
		`</title><img src=x onerror=alert(1)>`, `javascript:alert(1)`, `{{.Version}}`, `</style><svg onload=alert(1)>`, "<!--",
	} {
		root, _ := get(t, Pool{Segments: []Segment{
			{Name: "pool", Extents: []Extent{{unit, unit}}, EmptyIn: name, Ranges: []Range{{Extent{unit, unit}, "allocated", name}}},
			{Name: name, Ranges: []Range{{Extent{9 * unit, unit}, name, name}}},
		}}, Event{Kind: name, Namespace: name, Pod: name, Range: name, Detail: name})
		for n := range root.Descendants() {
			if n.Type == html.CommentNode || n.Type == html.ElementNode && slices.Contains([]string{"script", "img", "svg", "link", "iframe", "a", "base"}, n.Data) {
				t.Errorf("%q makes a %s", name, n.Data)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "src" || a.Key == "href" || a.Key == "style" {
					t.Errorf("%q makes an attribute %s=%q", name, a.Key, a.Val)
				}
			}
		}
		if got := squares(root); len(got) != 1 || got[0] != "allocated 65536:65536 allocated "+name {
			t.Errorf("%q is shown as %q", name, got)
		}
		if !strings.Contains(text(root), name+"/"+name) {
			t.Errorf("%q is not in the history", name)
		}
	}
}

// TestPageOfAFullPool: 65,534 ranges in one segment, all of them used by pods with the longest names that there are.
func TestPageOfAFullPool(t *testing.T) {
	const count = 65534
	long := strings.Repeat("n", 63) + "/" + strings.Repeat("p", 253)
	full := Segment{Name: "kubelet", Extents: []Extent{{unit, count * unit}}, Capacity: count, Allocated: count}
	outside := Segment{Name: "external", Allocated: count}
	for i := range uint64(count) {
		r := Range{Extent{(i + 1) * unit, unit}, "allocated", long}
		full.Ranges, outside.Ranges = append(full.Ranges, r), append(outside.Ranges, r)
	}
	var events []Event
	for range 300 {
		events = append(events, Event{Kind: Failed, Namespace: long, Pod: long, Detail: strings.Repeat("x", 9999)})
	}
	began := cpuTime(t)
	root, answer := get(t, Pool{Segments: []Segment{full, outside}}, events...)
	if took := cpuTime(t) - began; took > 3*time.Second {
		t.Errorf("the page takes %s of processor time", took)
	}
	if size := answer.Body.Len(); size > 1<<20 {
		t.Errorf("the page has %d bytes", size)
	}
	got := squares(root)
	if len(got) > maxBlocks || len(got) < maxBlocks/2 || got[0] != "allocated 65536:2097152 32 allocated" {
		t.Errorf("the map has %d squares, the first %q", len(got), got[0])
	}
	if !strings.Contains(text(root), fmt.Sprintf("And %d more", count-maxListed)) {
		t.Error("the page does not say that there is more")
	}
}

// TestDefaultSegmentHasASquareForEachRange: 2,046 ranges.
func TestDefaultSegmentHasASquareForEachRange(t *testing.T) {
	blocks, each := drawMap([]Extent{{2013265920, 2046 * unit}}, []Range{{Extent{2013265920 + 2045*unit, unit}, "quarantined", "x"}})
	if len(blocks) != 2046 || each != 1 || blocks[2045].State != "quarantined" || blocks[2044].State != "" {
		t.Errorf("%d squares of %d ranges, the last is %+v", len(blocks), each, blocks[len(blocks)-1])
	}
}
