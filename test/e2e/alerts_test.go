package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Where the manifests are, and the tests of the rules in them.
const (
	rulesManifest  = "../../manifests/monitoring/prometheusrule.yaml"
	alertTestsGlob = "testdata/alerts/*.yaml"
)

// alert is one rule of the PrometheusRule.
type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// ruleFile is what Prometheus loads: the specification of a PrometheusRule.
type ruleFile struct {
	Groups []struct {
		Name  string            `json:"name"`
		Rules []json.RawMessage `json:"rules"`
	} `json:"groups"`
}

// readRules returns the rules of the manifest, and the file that Prometheus would load.
func readRules(t *testing.T) (alerts []alert, file []byte) {
	t.Helper()
	text, err := os.ReadFile(rulesManifest)
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Spec       ruleFile `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	if object.APIVersion != "monitoring.coreos.com/v1" || object.Kind != "PrometheusRule" {
		t.Fatalf("%s is a %s of %s", rulesManifest, object.Kind, object.APIVersion)
	}
	for _, g := range object.Spec.Groups {
		for _, rule := range g.Rules {
			var a alert
			if err := yaml.Unmarshal(rule, &a); err != nil {
				t.Fatal(err)
			}
			alerts = append(alerts, a)
		}
	}
	if file, err = yaml.Marshal(object.Spec); err != nil {
		t.Fatal(err)
	}
	return alerts, file
}

// alertTests is what of a file for promtool has to be looked at here.
type alertTests struct {
	Tests []struct {
		Name           string `json:"name"`
		AlertRuleTests []struct {
			Alertname string            `json:"alertname"`
			ExpAlerts []json.RawMessage `json:"exp_alerts"`
		} `json:"alert_rule_test"`
	} `json:"tests"`
}

// TestAlertRules: promtool finds the rules well-formed, and each alert fires and does not fire when its tests say.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	alerts, file := readRules(t)
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.yaml") // the tests name it
	if err := os.WriteFile(rules, file, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "rules", "--lint=all", "--lint-fatal", rules)
	files, err := filepath.Glob(alertTestsGlob)
	if err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	args := []string{"test", "rules"}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		noteAlertTests(t, path, text, fires, silent)
		name := filepath.Join(dir, "test-"+filepath.Base(path))
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	t.Log(promtool(t, nil, args...))
	for _, a := range alerts {
		if a.Alert == "" {
			t.Errorf("a rule without an alert: %s", a.Expr)
		}
		if !fires[a.Alert] || !silent[a.Alert] {
			t.Errorf("alert %s has a test in which it fires: %t, one in which it does not: %t", a.Alert, fires[a.Alert], silent[a.Alert])
		}
		for _, key := range []string{"summary", "description", "runbook_url"} {
			if a.Annotations[key] == "" {
				t.Errorf("alert %s has no %s", a.Alert, key)
			}
		}
		if !slices.Contains([]string{"warning", "critical"}, a.Labels["severity"]) {
			t.Errorf("alert %s has severity %q", a.Alert, a.Labels["severity"])
		}
	}
}

// noteAlertTests notes which alerts a file expects to fire, and which not to.
func noteAlertTests(t *testing.T, path string, text []byte, fires, silent map[string]bool) {
	t.Helper()
	var file alertTests
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, test := range file.Tests {
		for _, at := range test.AlertRuleTests {
			if len(at.ExpAlerts) > 0 {
				fires[at.Alertname] = true
			} else {
				silent[at.Alertname] = true
			}
		}
	}
	if len(file.Tests) == 0 {
		t.Errorf("%s has no tests", path)
	}
}

// TestScrapeConfigOfThePage: Prometheus takes the configuration that docs/operations.md shows, and its job has the name that alerts
// and dashboard ask for.
func TestScrapeConfigOfThePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(scrape_configs:.*?)```").FindSubmatch(page)
	if block == nil || !strings.Contains(string(block[1]), "job_name: userns-shim\n") {
		t.Fatalf("the page shows no scrape configuration of userns-shim: %q", block)
	}
	path := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(path, block[1], 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "config", path)
}
