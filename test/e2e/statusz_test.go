package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// statusPage is what the daemon's page says, read as a browser would.
type statusPage struct {
	elements []string            // names of all elements
	squares  map[string][]string // classes by segment, empty for free
	titles   []string            // of squares
	counts   map[string]string   // as "segment class"
	events   []string            // kind, pod and range, the latest first
}

func readStatusPage(t *testing.T, n *nodetest.Node) statusPage {
	t.Helper()
	url := strings.TrimSuffix(n.MetricsURL(), "/metrics") + "/statusz"
	resp, err := n.World.HTTPClient().Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("GET %s: %s %v: %v", url, resp.Status, resp.Header, err)
	}
	root, err := html.Parse(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	p := statusPage{squares: map[string][]string{}, counts: map[string]string{}}
	for node := range root.Descendants() {
		if node.Type == html.ElementNode {
			p.elements = append(p.elements, node.Data)
		}
		if segment, ok := strings.CutPrefix(htmlAttr(node, "id"), "segment-"); ok && node.Data == "section" {
			p.readSegment(node, segment)
		}
		if node.Data == "tr" && node.Parent.Parent.Parent != nil && htmlAttr(node.Parent.Parent.Parent, "id") == "history" {
			p.readEvent(node)
		}
	}
	return p
}

func (p *statusPage) readSegment(section *html.Node, segment string) {
	for node := range section.Descendants() {
		class := htmlAttr(node, "class")
		switch node.Data {
		case "i":
			p.squares[segment] = append(p.squares[segment], class)
			p.titles = append(p.titles, htmlAttr(node, "title"))
		case "td":
			if name, ok := strings.CutPrefix(class, "n "); ok {
				p.counts[segment+" "+name] = htmlText(node)
			}
		}
	}
}

func (p *statusPage) readEvent(row *html.Node) {
	var cells []string
	for cell := range row.ChildNodes() {
		if cell.Data == "td" {
			cells = append(cells, htmlText(cell))
		}
	}
	if len(cells) == 5 {
		p.events = append(p.events, strings.Join(cells[1:4], " "))
	}
}

func htmlAttr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func htmlText(n *html.Node) string {
	var words []string
	for node := range n.Descendants() {
		if node.Type == html.TextNode {
			words = append(words, node.Data)
		}
	}
	return strings.Join(words, "")
}

// TestStatusPageShowsThePoolAndItsHistory: allocation, conflict, failure and release, with the pods' names, and the map.
func TestStatusPageShowsThePoolAndItsHistory(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 3, KubeletRanges: 2})
	first := n.RunPod(t)
	conflicted := n.RunPod(t, nodetest.Mapping(first.Range(t)))
	gone := n.RunPod(t)
	refused := n.PodRequest(t)
	if _, err := n.TryRunPod(t, refused); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("a fourth pod: %v", err)
	}
	goneRange := rangeWords(gone.Range(t))
	gone.Remove(t)

	p := readStatusPage(t, n)
	name := func(r *runtimeapi.RunPodSandboxRequest) string {
		return r.Config.Metadata.Namespace + "/" + r.Config.Metadata.Name
	}
	want := []string{
		"released " + name(gone.Request) + " " + goneRange,
		"failed " + name(refused) + " ",
		"allocated " + name(gone.Request) + " " + goneRange,
		"allocated " + name(conflicted.Request) + " " + rangeWords(conflicted.Range(t)),
		"conflict " + name(conflicted.Request) + " ",
		"allocated " + name(first.Request) + " " + rangeWords(first.Range(t)),
	}
	if !slices.Equal(p.events, want) {
		t.Errorf("the history is %q,\nwant %q", p.events, want)
	}
	if !slices.Contains(p.titles, rangeWords(first.Range(t))+" allocated "+name(first.Request)) {
		t.Errorf("no square is of the first pod, but %q", p.titles)
	}
	if got := p.squares["pool"]; len(got) != 3 || count(got, "allocated") != 2 || count(got, "") != 0 {
		t.Errorf("the pool's map is %q, want two allocated and one in quarantine", got)
	}
	if got := p.squares["kubelet"]; len(got) != 2 || count(got, "") != 2 {
		t.Errorf("kubelet's map is %q, want two free", got)
	}
	if p.counts["pool capacity"] != "3" || p.counts["pool allocated"] != "2" || p.counts["kubelet free"] != "2" || p.counts["external allocated"] != "0" {
		t.Errorf("counts are %v", p.counts)
	}
	crash(t, n)
	if p := readStatusPage(t, n); len(p.events) != 0 || p.counts["pool allocated"] != "2" {
		t.Errorf("after a restart the history is %q, the counts %v", p.events, p.counts)
	}
}

// TestStatusPageRunsNothing: what a client can call a pod is text on the page.
func TestStatusPageRunsNothing(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	const hostile = `"><img src onerror><script>alert(1)`
	n.RunPod(t, func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata.Name = hostile })
	p := readStatusPage(t, n)
	for _, element := range []string{"script", "img", "link", "iframe"} {
		if slices.Contains(p.elements, element) {
			t.Errorf("the page has an element %s", element)
		}
	}
	if len(p.events) != 1 || !strings.Contains(p.events[0], hostile) || !slices.ContainsFunc(p.titles, func(title string) bool { return strings.HasSuffix(title, hostile) }) {
		t.Errorf("the pod's name is not on the page: %q", p.events)
	}
}

func count(all []string, word string) int {
	n := 0
	for _, w := range all {
		if w == word {
			n++
		}
	}
	return n
}

// rangeWords is how a pod's range is written.
func rangeWords(start uint32) string { return fmt.Sprintf("%d:65536", start) }
