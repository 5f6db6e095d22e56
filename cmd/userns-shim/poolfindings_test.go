package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/metrics"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/foreign"
	"github.com/userns-shim/userns-shim/pkg/idpool/subid"
)

// sorts are those of findings with their severities.
func sorts(all []admin.Finding) []string {
	var out []string
	for _, f := range all {
		out = append(out, f.Code+" "+f.Severity)
	}
	return out
}

func TestExtentFindings(t *testing.T) {
	own, kubelet := idpool.DefaultExtents(), idpool.DefaultKubeletExtents()
	at := func(start, length uint32) []idpool.Range { return []idpool.Range{{Start: start, Length: length}} }
	for name, c := range map[string]struct {
		kubelet, own []idpool.Range
		want         []string
	}{
		"the defaults":             {kubelet, own, nil},
		"a kubelet without limits": {[]idpool.Range{subid.Unconfigured(idpool.Unit)}, own, []string{"kubelet-unlimited warning"}},
		"segments that meet":       {at(own[0].Start, 65536), own, []string{"extents-meet error"}},
		"nspawn's and others":      {kubelet, at(524288, 65536), []string{"extent-overlap warning", "extent-overlap warning", "extent-overlap warning"}},
		"OpenShift's":              {at(2000224256, 65536), own, nil},
		"systemd's foreign ids":    {kubelet, at(0x7FFE0000, 65536), []string{"extent-overlap error"}},
		"from 2^31 on":             {at(1<<31, 65536), own, []string{"extent-signed warning"}},
		"the last below 2^31":      {at(1<<31-65536, 65536), own, nil},
		"the host's":               {at(0, 65536*1), own, []string{"extent-overlap error"}},
		"everything by a file":     {at(65536, 1<<32-1-65536), own, []string{"extents-meet error", "extent-overlap warning", "extent-overlap warning", "extent-overlap warning", "extent-overlap warning", "extent-overlap warning", "extent-overlap error", "extent-signed warning"}},
		"no extents for kubelet":   {nil, own, nil},
	} {
		got := extentFindings(c.kubelet, c.own, limitsKubelet(c.kubelet))
		if !slices.Equal(sorts(got), c.want) {
			t.Errorf("%s: %q, want %q", name, sorts(got), c.want)
		}
		for _, f := range got {
			if f.Remedy == "" || f.Message == "" {
				t.Errorf("%s: %+v without a remedy", name, f)
			}
		}
	}
}

func TestForeignFindings(t *testing.T) {
	r := idpool.Range{Start: 2113798144 + 5, Length: 1}
	report := foreign.Report{
		Owners: []foreign.Owner{
			{Kind: foreign.KindNamespace, Range: r, Who: "process 1 (x)"},
			{Kind: foreign.KindSubUID, Range: r, Who: "bob", Where: "/etc/subuid:3"},
			{Kind: foreign.KindStorage, Range: r, Who: "container c", Pod: "pod-1"},
		},
		Counts: map[foreign.Kind]int{foreign.KindNamespace: 1, foreign.KindSubUID: 5, foreign.KindStorage: 1},
		Failed: []foreign.Failure{{Source: "name-service", Err: errors.New("slow")}, {Source: "lxc", Err: errors.New("broken")}},
	}
	got := foreignFindings(report)
	want := []string{"foreign-namespace error", "foreign-subuid warning", "foreign-containers-storage error", "foreign-subuid warning", "scan-incomplete warning", "scan-incomplete warning"}
	if !slices.Equal(sorts(got), want) {
		t.Fatalf("findings %q, want %q", sorts(got), want)
	}
	for i, says := range map[int][2]string{
		0: {"process 1 (x)", "reserve NAME 2113798144:65536"},
		1: {"bob", "/etc/subuid:3"},
		2: {"which a pod has too", "pool who 2113798149"},
		3: {"4 more", ""},
		4: {"slow", "nsswitch.conf"},
		5: {"broken", "lxc"},
	} {
		if !strings.Contains(got[i].Message, says[0]) || !strings.Contains(got[i].Remedy, says[1]) {
			t.Errorf("finding %d is %+v, want %q", i, got[i], says)
		}
		if got[i].Remedy == "" {
			t.Errorf("finding %d, %+v, says not what to do", i, got[i])
		}
	}
	for _, kind := range foreign.Kinds() {
		if foreignWords[kind] == "" {
			t.Errorf("no words for %s", kind)
		}
	}
}

func TestLeakFindings(t *testing.T) {
	got := leakFindings(admin.Leaks{Error: "disk\nand containerd", Leaks: []admin.Leak{
		{Kind: "pin", Found: "a pin", Repair: "unpinned"}, {Kind: "container", Found: "a container", Remedy: "remove it"},
	}})
	want := []string{"leak-pin info", "leak-container error", "leaks-unknown warning"}
	if !slices.Equal(sorts(got), want) || !strings.Contains(got[0].Message, "repaired: unpinned") || got[1].Remedy != "remove it" {
		t.Errorf("findings %+v", got)
	}
	if f := got[2]; f.Remedy == "" || !strings.HasSuffix(f.Message, "disk; and containerd") {
		t.Errorf("what could not be looked for is told as %+v, want a line of words and a remedy", f)
	}
}

func TestLedgerFindings(t *testing.T) {
	var all []idpool.Finding
	for _, kind := range []idpool.FindingKind{idpool.FindingOutside, idpool.FindingNotStrict, idpool.FindingSigned, idpool.FindingExtentsMeet} {
		all = append(all, idpool.Finding{Kind: kind})
	}
	got := ledgerFindings(all)
	if len(got) != 3 {
		t.Fatalf("findings %+v, want all but the one that extentFindings tells", got)
	}
	for _, f := range got {
		if f.Message == "" || f.Remedy == "" {
			t.Errorf("finding %+v says nothing", f)
		}
	}
}

// TestSummaryFitsNodeProblemDetector, which cuts what is longer.
func TestSummaryFitsNodeProblemDetector(t *testing.T) {
	long := admin.Finding{Severity: admin.SeverityError, Code: "foreign-containers-storage", Start: 4294901760, Length: 4294901760}
	var many []admin.Finding
	for range 99999 {
		many = append(many, long)
	}
	for want, check := range map[string]admin.Check{
		"99999 errors, 0 warnings: foreign-containers-storage 4294901760:4294901760": {Findings: many},
		"0 errors, 1 warnings: kubelet-unlimited":                                    {Findings: []admin.Finding{{Severity: admin.SeverityWarning, Code: "kubelet-unlimited"}}},
		"nothing found, looked 1m0s ago":                                             {Scanned: time.Now().Add(-time.Minute), Compared: time.Now(), Findings: []admin.Finding{{Severity: admin.SeverityInfo}}},
		"nothing found; leaked ranges were not looked for yet":                       {Scanned: time.Now()},
		"nothing found; foreign owners of ids were not looked for yet":               {},
	} {
		if got := summary(check); got != want || len(got) > summaryLength {
			t.Errorf("summary %q of %d bytes, want %q", got, len(got), want)
		}
	}
	var out bytes.Buffer
	f := poolFlags{output: "text"}
	if err := f.printCheck(&out, admin.Check{Findings: []admin.Finding{long}}); err != nil {
		t.Fatal(err)
	}
	if first, rest, _ := strings.Cut(out.String(), "\n"); first != summary(admin.Check{Findings: []admin.Finding{long}}) || !strings.Contains(rest, "foreign-containers-storage") {
		t.Errorf("printed\n%s", out.String())
	}
}

// TestMetricsKnowTheScanner: their series exist before the first scan.
func TestMetricsKnowTheScanner(t *testing.T) {
	var kinds, sources []string
	for _, kind := range foreign.Kinds() {
		kinds = append(kinds, string(kind))
	}
	for _, source := range foreignNode("/run/userns-shim").Sources() {
		sources = append(sources, source.Name())
	}
	slices.Sort(kinds)
	slices.Sort(sources)
	if got := slices.Sorted(slices.Values(metrics.ForeignKinds)); !slices.Equal(got, kinds) {
		t.Errorf("metrics know the kinds %q, the scanner has %q", got, kinds)
	}
	if got := slices.Sorted(slices.Values(metrics.ForeignSources)); !slices.Equal(got, sources) {
		t.Errorf("metrics know the sources %q, the scanner has %q", got, sources)
	}
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{fmt.Errorf("x: %w", usageError{errors.New("y")}), exitUsage},
		{errors.New("x"), exitFailure},
		{codedError{exitUnknown, errors.New("x")}, exitUnknown},
		{codedError{exitFindings, errSilent}, exitFindings},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v gives %d, want %d", c.err, got, c.want)
		}
	}
}
