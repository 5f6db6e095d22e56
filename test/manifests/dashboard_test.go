package manifests

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const dashboardFile = "../../manifests/monitoring/grafana-dashboard.json"

// TestDashboardHasNoUnknownKeys holds the dashboard's keys against a list, for Grafana ignores those that it does not know, and
// publishes no schema that a test can load. What the panels ask for is held by the e2e tier, on metrics of a daemon.
func TestDashboardHasNoUnknownKeys(t *testing.T) {
	var dashboard any
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &dashboard); err != nil {
		t.Fatal(err)
	}
	var known []string
	for line := range strings.Lines(read(t, "testdata/dashboard-keys.txt")) {
		if !strings.HasPrefix(line, "#") {
			known = append(known, strings.TrimSpace(line))
		}
	}
	used := keys(dashboard, "")
	for _, key := range used {
		if !slices.Contains(known, key) {
			t.Errorf("the dashboard has the key %s, which is not known to be one of Grafana's", key)
		}
	}
	for _, key := range known {
		if !slices.Contains(used, key) {
			t.Errorf("the dashboard has no key %s", key)
		}
	}
}

// TestDashboardsVariablesAreDefined: a query with another one would be sent as it stands.
func TestDashboardsVariablesAreDefined(t *testing.T) {
	text := read(t, dashboardFile)
	var dashboard struct {
		Templating struct{ List []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, name := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(name[1], "__") { // Grafana's own
			used[name[1]] = true
		}
	}
	for _, variable := range dashboard.Templating.List {
		if !used[variable.Name] {
			t.Errorf("nothing uses the variable %s", variable.Name)
		}
		delete(used, variable.Name)
	}
	for name := range used {
		t.Errorf("$%s is no variable of the dashboard", name)
	}
}

// keys are the paths of all keys below v, each once.
func keys(v any, path string) []string {
	var out []string
	switch v := v.(type) {
	case map[string]any:
		for key, below := range v {
			key = strings.TrimPrefix(path+"."+key, ".")
			out = append(append(out, key), keys(below, key)...)
		}
	case []any:
		for _, item := range v {
			out = append(out, keys(item, path+"[]")...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
