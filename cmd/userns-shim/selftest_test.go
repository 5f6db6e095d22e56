package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"

	"github.com/userns-shim/userns-shim/internal/selftest"
)

func execute(t *testing.T, args ...string) (stdout string, code int) {
	t.Helper()
	var out bytes.Buffer
	cmd := rootCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		return out.String(), exitCode(err)
	}
	return out.String(), 0
}

func TestSelftestUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown flag":      {"--what"},
		"argument":          {"now"},
		"output format":     {"-o", "yaml"},
		"ids":               {"--ids", "65536"},
		"ids for one pod":   {"--ids", "65536:65536"},
		"relative endpoint": {"--endpoint", "cri.sock"},
		"no time":           {"--timeout", "0s"},
	} {
		t.Run(name, func(t *testing.T) {
			if out, code := execute(t, append([]string{"selftest"}, args...)...); code != exitUsage {
				t.Errorf("the exit code is %d, want %d: %s", code, exitUsage, out)
			}
		})
	}
}

// TestSelftestWithoutARuntime still reports, every check of it.
func TestSelftestWithoutARuntime(t *testing.T) {
	out, code := execute(t, "selftest", "-o", "json", "--ids", "1048576:131072", "--endpoint", "unix://"+filepath.Join(t.TempDir(), "none.sock"))
	if code != exitFailure {
		t.Errorf("the exit code is %d, want %d", code, exitFailure)
	}
	var report selftest.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var names []string
	for _, c := range report.Checks {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, selftest.Names()) || report.OK || !report.Checks[0].Failed() {
		t.Errorf("the report is %+v, want every check, and the first failed", report)
	}
}
