package e2e

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// scrape returns the metrics that the daemon serves.
func scrape(t *testing.T, n *nodetest.Node) []byte {
	t.Helper()
	resp, err := n.World.HTTPClient().Get(n.MetricsURL())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v: %s", n.MetricsURL(), resp.Status, err, body)
	}
	return body
}

// families are the daemon's metrics by name.
func families(t *testing.T, n *nodetest.Node) map[string]*dto.MetricFamily {
	t.Helper()
	body := scrape(t, n)
	return parseFamilies(t, body)
}

func parseFamilies(t *testing.T, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	found, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("parse metrics: %v", err)
	}
	return found
}

// labelsOf is a series' labels as name=value, sorted.
func labelsOf(m *dto.Metric) string {
	var pairs []string
	for _, l := range m.Label {
		pairs = append(pairs, l.GetName()+"="+l.GetValue())
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// sampleOf is the value of a gauge or counter.
func sampleOf(t *testing.T, all map[string]*dto.MetricFamily, name, labels string) float64 {
	t.Helper()
	for _, m := range all[name].GetMetric() {
		if labelsOf(m) == labels {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s{%s}", name, labels)
	return 0
}

// served is a metric that a daemon has to serve: its type, and the labels of its series.
type served struct {
	kind   dto.MetricType
	series []string
}

// cross joins each of the labels a with each of b.
func cross(a, b []string) []string {
	var all []string
	for _, x := range a {
		for _, y := range b {
			all = append(all, x+","+y)
		}
	}
	return all
}

func label(name string, values ...string) []string {
	var all []string
	for _, v := range values {
		all = append(all, name+"="+v)
	}
	return all
}

// wantServed is every metric of userns-shim's own, as docs/operations.md and manifests/ use them.
func wantServed() map[string]served {
	states := label("state", "free", "allocated", "quarantined", "reserved", "external", "leaked", "waiting")
	extents := label("segment", "kubelet", "pool")
	segments := label("segment", "kubelet", "pool", "external")
	return map[string]served{
		"idpool_capacity_ranges":                 {dto.MetricType_GAUGE, extents},
		"idpool_ranges":                          {dto.MetricType_GAUGE, cross(segments, states)},
		"idpool_largest_free_ids":                {dto.MetricType_GAUGE, extents},
		"idpool_predicted_empty_seconds":         {dto.MetricType_GAUGE, extents},
		"idpool_oldest_quarantine_age_seconds":   {dto.MetricType_GAUGE, segments},
		"idpool_oldest_held_age_seconds":         {dto.MetricType_GAUGE, segments},
		"idpool_allocations_total":               {dto.MetricType_COUNTER, label("source", "acquire", "claim")},
		"idpool_allocation_failures_total":       {dto.MetricType_COUNTER, label("reason", "exhausted", "fragmented", "conflict", "invalid", "io")},
		"idpool_conflicts_total":                 {dto.MetricType_COUNTER, label("with", "pod", "quarantine", "reservation", "held", "host", "kernel")},
		"idpool_quarantine_early_releases_total": {dto.MetricType_COUNTER, []string{""}},
		"idpool_claims_from_quarantine_total":    {dto.MetricType_COUNTER, []string{""}},
		"idpool_releases_total":                  {dto.MetricType_COUNTER, []string{""}},
		"idpool_allocation_duration_seconds":     {dto.MetricType_HISTOGRAM, []string{""}},
		"state_commit_duration_seconds":          {dto.MetricType_HISTOGRAM, label("outcome", "ok", "error")},
		"cri_request_duration_seconds":           {dto.MetricType_HISTOGRAM, cross(label("code", "OK"), label("method", "RunPodSandbox", "Status"))},
		"idpool_leaks_found_total":               {dto.MetricType_COUNTER, label("kind", "ledger", "record", "pin", "process", "layer", "container")},
		"idpool_leaks_repaired_total":            {dto.MetricType_COUNTER, label("kind", "ledger", "record", "pin", "process", "layer", "container")},
		"idpool_foreign_owners":                  {dto.MetricType_GAUGE, label("kind", "namespace", "process", "subuid", "subgid", "user", "group")},
		"idpool_foreign_scan_failures_total":     {dto.MetricType_COUNTER, label("source", "processes", "subordinate-ids", "name-service")},
		"idpool_foreign_scan_timestamp_seconds":  {dto.MetricType_GAUGE, []string{""}},
		"idpool_foreign_scan_duration_seconds":   {dto.MetricType_GAUGE, []string{""}},
		"build_info":                             {dto.MetricType_GAUGE, nil},
	}
}

// TestMetricsAreServed: every metric that operators are told of, with its type, its labels and help, from a daemon that has
// run a pod; and promtool finds nothing to say about their form.
func TestMetricsAreServed(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	n.RunPod(t)
	condition(t, n, "RuntimeReady")
	all := families(t, n)
	for name, want := range wantServed() {
		f := all["userns_shim_"+name]
		if f == nil || f.GetType() != want.kind || len(f.GetHelp()) < 20 {
			t.Errorf("metric %s: %v %q, want a %v with its help", name, f.GetType(), f.GetHelp(), want.kind)
			continue
		}
		have := map[string]bool{}
		for _, m := range f.Metric {
			have[labelsOf(m)] = true
		}
		for _, series := range want.series {
			if !have[series] {
				t.Errorf("metric %s has no series {%s}, but %q", name, series, slices.Sorted(maps.Keys(have)))
			}
		}
	}
	for _, series := range []string{"segment=pool,state=leaked", "segment=kubelet,state=reserved", "segment=external,state=external"} {
		if got := sampleOf(t, all, "userns_shim_idpool_ranges", series); got != 0 {
			t.Errorf("ranges{%s} is %v on a node that has none", series, got)
		}
	}
	if got := sampleOf(t, all, "userns_shim_idpool_ranges", "segment=pool,state=allocated"); got != 1 {
		t.Errorf("%v ranges are allocated, want 1", got)
	}
	text := scrape(t, n)
	promtool(t, bytes.NewReader(text), "check", "metrics")
}

// TestMetricsOfAClientsMapping: claimed in kubelet's segment and outside of both.
func TestMetricsOfAClientsMapping(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 2, KubeletRanges: 2})
	n.RunPod(t, nodetest.Mapping(n.Kubelet().Start))
	outside := n.Pool().Start + n.Pool().Length
	n.RunPod(t, nodetest.Mapping(outside))
	all := families(t, n)
	for labels, want := range map[string]float64{
		"segment=kubelet,state=allocated":  1,
		"segment=kubelet,state=free":       1,
		"segment=external,state=external":  1,
		"segment=external,state=allocated": 0,
		"segment=pool,state=free":          2,
	} {
		if got := sampleOf(t, all, "userns_shim_idpool_ranges", labels); got != want {
			t.Errorf("ranges{%s} is %v, want %v", labels, got, want)
		}
	}
	if got := sampleOf(t, all, "userns_shim_idpool_allocations_total", "source=claim"); got != 2 {
		t.Errorf("%v claims, want 2", got)
	}
}

// TestMetricsOfClaimsFromQuarantine: kubelet draws ids again that rest after another pod.
func TestMetricsOfClaimsFromQuarantine(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	for range 2 {
		n.RunPod(t, nodetest.Mapping(n.Kubelet().Start)).Remove(t)
	}
	all := families(t, n)
	for name, want := range map[string]float64{"claims_from_quarantine_total": 1, "releases_total": 2, "quarantine_early_releases_total": 1} {
		if got := sampleOf(t, all, "userns_shim_idpool_"+name, ""); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// TestMetricsOfEarlyReleases: a pool of one range, which two pods have after each other.
func TestMetricsOfEarlyReleases(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 1})
	n.RunPod(t).Remove(t)
	if got := sampleOf(t, families(t, n), "userns_shim_idpool_quarantine_early_releases_total", ""); got != 0 {
		t.Errorf("%v ranges left quarantine early, want none yet", got)
	}
	n.RunPod(t)
	if got := sampleOf(t, families(t, n), "userns_shim_idpool_quarantine_early_releases_total", ""); got != 1 {
		t.Errorf("%v ranges left quarantine early, want 1", got)
	}
}

// promtool runs Prometheus' own checker, and returns what it prints.
func promtool(t *testing.T, stdin io.Reader, args ...string) string {
	t.Helper()
	path := filepath.Join(string(nodetest.Tools(t)), "promtool")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v (`make tools` builds it)", err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("promtool %s: %v\n%s", fmt.Sprint(args), err, out)
	}
	return string(out)
}
