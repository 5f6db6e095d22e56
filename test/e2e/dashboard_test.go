package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

const dashboardManifest = "../../manifests/monitoring/grafana-dashboard.json"

// dashboard is what of Grafana's model is looked at here.
type dashboard struct {
	Title      string  `json:"title"`
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
}

type panel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		Datasource   struct{ Type, UID string }
		RefID        string `json:"refId"`
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(dashboardManifest)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// labNode is the label "instance" of the lab's node.
const labNode = "node-1"

// fillIn gives the variables of a query the values that Grafana would.
func fillIn(expr string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$instance", labNode, "$segment", ".*").Replace(expr)
}

// TestDashboardIsWhole: every panel says what it shows, has queries of the chosen data source, and a place of its own.
func TestDashboardIsWhole(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	ids, taken := map[int]string{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if other, ok := ids[p.ID]; ok || p.ID == 0 || p.Title == "" {
			t.Errorf("panel %q has id %d, as has %q", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Errorf("panel %q is at %d,%d, where %q is", p.Title, x, y, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("panel %q has description %q and %d queries", p.Title, p.Description, len(p.Targets))
		}
		for _, q := range p.Targets {
			if q.Datasource.Type != "prometheus" || q.Datasource.UID != "${datasource}" || q.RefID == "" {
				t.Errorf("panel %q: query %s is of data source %+v", p.Title, q.RefID, q.Datasource)
			}
		}
	}
}

// TestDashboardShowsWhatIsServed: each query is made of metrics and labels that a real daemon serves, every metric of the daemon's
// own is in a query or an alert, and Prometheus answers each query with something when it has scraped that daemon.
func TestDashboardShowsWhatIsServed(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 4})
	live(t, n)
	first := scrape(t, n)
	live(t, n)
	second := scrape(t, n)
	known := metricsIn(parseFamilies(t, second))
	used := map[string]bool{}
	var queries []string
	for _, p := range readDashboard(t).Panels {
		for _, q := range p.Targets {
			expr := fillIn(q.Expr)
			result := checkQuery(t, "panel "+p.Title, expr, known, used)
			for _, name := range regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`).FindAllStringSubmatch(q.LegendFormat, -1) {
				if !result[name[1]] {
					t.Errorf("panel %q: the legend %q names a label that %s does not have", p.Title, q.LegendFormat, expr)
				}
			}
			queries = append(queries, expr)
		}
	}
	alerts, _ := readRules(t)
	for _, a := range alerts {
		checkQuery(t, "alert "+a.Alert, a.Expr, known, used)
	}
	for _, v := range readDashboard(t).Templating.List {
		if v.Type == "query" {
			checkVariable(t, v.Definition, known)
		}
	}
	for name := range known {
		base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		if strings.HasPrefix(name, "userns_shim_") && !used[name] && !used[base+"_bucket"] && !used[base+"_count"] {
			t.Errorf("metric %s is in no panel and no alert", name)
		}
	}
	answered(t, queries, first, second)
}

// live makes the daemon do what the dashboard shows: pods with ids, commits, and calls of which one fails.
func live(t *testing.T, n *nodetest.Node) {
	t.Helper()
	n.RunPod(t).Remove(t)
	n.RunPod(t)
	if _, err := n.Runtime.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: "none"}); err == nil {
		t.Fatal("a container that does not exist has a status")
	}
}

// checkVariable looks at a query such as label_values(metric{...}, label).
func checkVariable(t *testing.T, definition string, known map[string]map[string]bool) {
	t.Helper()
	parts := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(definition)
	if parts == nil {
		t.Errorf("variable %q is no label_values(metric, label)", definition)
		return
	}
	if result := checkQuery(t, "variable "+definition, parts[1], known, map[string]bool{}); !result[parts[2]] {
		t.Errorf("variable %q: the metric has no label %s, but %q", definition, parts[2], slices.Sorted(maps.Keys(result)))
	}
}

// answered has promtool evaluate each query over the two scrapes, a minute apart. A query that gives nothing, or
// nothing but NaN, has failed.
func answered(t *testing.T, queries []string, scrapes ...[]byte) {
	t.Helper()
	file := ruleTest{Interval: "1m", Series: inputSeries(scrapes)}
	for _, expr := range queries {
		file.Queries = append(file.Queries, queryTest{
			Expr: fmt.Sprintf("count((%s) == (%s)) > bool 0", expr, expr), EvalTime: "1m",
			Samples: []sampleTest{{Labels: "{}", Value: 1}},
		})
	}
	file.run(t)
}
