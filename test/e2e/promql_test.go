package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// metricsIn are the names of all series with the labels that they have, the scrape's included.
func metricsIn(all map[string]*dto.MetricFamily) map[string]map[string]bool {
	known := map[string]map[string]bool{"up": {"job": true, "instance": true}}
	for name, f := range all {
		set := map[string]bool{"job": true, "instance": true}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				set[l.GetName()] = true
			}
		}
		if f.GetType() != dto.MetricType_HISTOGRAM {
			known[name] = set
			continue
		}
		known[name+"_sum"], known[name+"_count"] = set, set
		known[name+"_bucket"] = maps.Clone(set)
		known[name+"_bucket"]["le"] = true
	}
	return known
}

// checkQuery holds a query against the metrics that there are: their names, and every label in a selector, a grouping
// or a matching. It returns the labels that the query's result may have, and notes the metrics in used.
func checkQuery(t *testing.T, where, expr string, known map[string]map[string]bool, used map[string]bool) map[string]bool {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %s: %v", where, expr, err)
		return nil
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			used[node.Name] = true
			checkSelector(t, where, node, known)
		case *parser.AggregateExpr:
			wantLabelNames(t, where, node.Grouping, labelsBelow(node.Expr, known))
		case *parser.BinaryExpr:
			if node.VectorMatching != nil {
				both := labelsBelow(node.LHS, known)
				maps.Copy(both, labelsBelow(node.RHS, known))
				wantLabelNames(t, where, node.VectorMatching.MatchingLabels, both)
			}
		}
		return nil
	})
	return labelsBelow(parsed, known)
}

func checkSelector(t *testing.T, where string, s *parser.VectorSelector, known map[string]map[string]bool) {
	t.Helper()
	have, ok := known[s.Name]
	if !ok {
		t.Errorf("%s: no daemon serves metric %q", where, s.Name)
		return
	}
	for _, m := range s.LabelMatchers {
		if m.Name != model.MetricNameLabel {
			wantLabelNames(t, where+": "+s.Name, []string{m.Name}, have)
		}
	}
}

func wantLabelNames(t *testing.T, where string, names []string, have map[string]bool) {
	t.Helper()
	for _, name := range names {
		if !have[name] {
			t.Errorf("%s: no label %q, but %q", where, name, slices.Sorted(maps.Keys(have)))
		}
	}
}

// labelsBelow are the labels that an expression's result may have.
func labelsBelow(node parser.Node, known map[string]map[string]bool) map[string]bool {
	found := map[string]bool{}
	switch node := node.(type) {
	case *parser.VectorSelector:
		maps.Copy(found, known[node.Name])
		return found
	case *parser.AggregateExpr:
		below := labelsBelow(node.Expr, known)
		for name := range below {
			if slices.Contains(node.Grouping, name) != node.Without {
				found[name] = true
			}
		}
		return found
	case *parser.BinaryExpr:
		if node.LHS.Type() == parser.ValueTypeScalar {
			return labelsBelow(node.RHS, known)
		}
		found = labelsBelow(node.LHS, known)
		if matching := node.VectorMatching; matching != nil && !node.Op.IsSetOperator() && !matching.On {
			maps.DeleteFunc(found, func(name string, _ bool) bool { return slices.Contains(matching.MatchingLabels, name) })
		}
		return found
	}
	for child := range parser.ChildrenIter(node) {
		maps.Copy(found, labelsBelow(child, known))
	}
	return found
}

// ruleTest is a file for promtool that evaluates queries over given series.
type ruleTest struct {
	Interval string
	Series   []seriesTest
	Queries  []queryTest
}

type seriesTest struct {
	Series string `json:"series"`
	Values string `json:"values"`
}

type queryTest struct {
	Expr     string       `json:"expr"`
	EvalTime string       `json:"eval_time"`
	Samples  []sampleTest `json:"exp_samples"`
}

type sampleTest struct {
	Labels string  `json:"labels"`
	Value  float64 `json:"value"`
}

func (r ruleTest) run(t *testing.T) {
	t.Helper()
	text, err := yaml.Marshal(map[string]any{"tests": []any{map[string]any{
		"interval": r.Interval, "input_series": r.Series, "promql_expr_test": r.Queries,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "queries.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "test", "rules", path)
}

// inputSeries makes one series of each line of the scrapes, with the labels that Prometheus would give it.
func inputSeries(scrapes [][]byte) []seriesTest {
	values := map[string][]string{}
	for i, text := range scrapes {
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			at := strings.LastIndexByte(line, ' ')
			if at < 0 || strings.HasPrefix(line, "#") {
				continue
			}
			series, value := line[:at], line[at+1:]
			name, inner, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
			if inner != "" {
				inner = "," + inner
			}
			key := name + `{job="userns-shim",instance="` + labNode + `"` + inner + "}"
			for len(values[key]) < i {
				values[key] = append(values[key], "_") // it was not there yet
			}
			values[key] = append(values[key], value)
		}
	}
	var all []seriesTest
	for _, key := range slices.Sorted(maps.Keys(values)) {
		all = append(all, seriesTest{Series: key, Values: strings.Join(values[key], " ")})
	}
	return all
}
