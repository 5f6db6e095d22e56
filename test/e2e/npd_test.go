package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// npdConfig is a custom plugin's configuration, as node-problem-detector documents it.
type npdConfig struct {
	Plugin       string `json:"plugin"`
	PluginConfig struct {
		InvokeInterval  string `json:"invoke_interval"`
		Timeout         string `json:"timeout"`
		MaxOutputLength int    `json:"max_output_length"`
		Concurrency     int    `json:"concurrency"`
		MessageChanges  bool   `json:"enable_message_change_based_condition_update"`
	} `json:"pluginConfig"`
	Source           string `json:"source"`
	MetricsReporting bool   `json:"metricsReporting"`
	Conditions       []struct{ Type, Reason, Message string }
	Rules            []struct {
		Type, Condition, Reason, Path, Timeout string
		Args                                   []string
	}
}

// npdPlugin reads the configuration and holds it against the rules that node-problem-detector has for one.
func npdPlugin(t *testing.T) npdConfig {
	t.Helper()
	text, err := os.ReadFile("../../manifests/node-problem-detector/userns-shim-pool.json")
	if err != nil {
		t.Fatal(err)
	}
	var c npdConfig
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		t.Fatal(err)
	}
	duration := func(s string) time.Duration {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			t.Errorf("duration %q: %v", s, err)
		}
		return d
	}
	interval, limit := duration(c.PluginConfig.InvokeInterval), duration(c.PluginConfig.Timeout)
	if c.Plugin != "custom" || c.Source == "" || interval < limit || c.PluginConfig.Concurrency < 1 || len(c.Conditions) != 1 || len(c.Rules) != 1 {
		t.Errorf("configuration %+v", c)
	}
	rule := c.Rules[0]
	if rule.Type != "permanent" || rule.Condition != c.Conditions[0].Type || rule.Reason == "" || rule.Reason == c.Conditions[0].Reason ||
		duration(rule.Timeout) > limit || !strings.HasSuffix(rule.Path, "/userns-shim") {
		t.Errorf("rule %+v of condition %+v", rule, c.Conditions[0])
	}
	return c
}

// runNPDPlugin runs the command of the only rule as node-problem-detector does: what it prints is trimmed and must not have to be cut.
func runNPDPlugin(t *testing.T, n *nodetest.Node, c npdConfig) (code int, message string) {
	t.Helper()
	args := append(slices.Clone(c.Rules[0].Args), "--state", n.Daemon.State)
	cmd := exec.CommandContext(t.Context(), shared.programs(t).daemon, args...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	message = strings.TrimSpace(string(out))
	if len(message) > c.PluginConfig.MaxOutputLength || strings.Contains(message, "\n") {
		t.Errorf("the plugin prints %q, which is no line of %d characters", message, c.PluginConfig.MaxOutputLength)
	}
	return cmd.ProcessState.ExitCode(), message
}

// TestNodeProblemDetectorPlugin: its exit codes are 0 for OK, 1 for not OK, and others for unknown.
func TestNodeProblemDetectorPlugin(t *testing.T) {
	t.Parallel()
	c := npdPlugin(t)
	n := ownNode(t, labnode.Options{})
	onNodeFile(t, n, "/etc/subuid", "")
	onNodeFile(t, n, "/etc/subgid", "")
	pod := n.RunPod(t)
	wantPool(t, n, "check", "--fresh")
	if code, message := runNPDPlugin(t, n, c); code != 0 || !strings.HasPrefix(message, "nothing found") {
		t.Errorf("on a node that is well: %d, %q", code, message)
	}
	cmd := intruder(t, pod.Range(t))
	checkPool(t, n, 1, "--fresh")
	if code, message := runNPDPlugin(t, n, c); code != 1 || !strings.HasPrefix(message, "1 errors, 0 warnings: foreign-namespace") {
		t.Errorf("with an error: %d, %q", code, message)
	}
	_, _ = cmd.Process.Kill(), cmd.Wait() // killed, which Wait tells
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code, message := runNPDPlugin(t, n, c); code != 2 || !strings.HasPrefix(message, "unknown: userns-shim does not listen on") {
		t.Errorf("without a daemon: %d, %q", code, message)
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code, message := runNPDPlugin(t, n, c); code == 1 {
		t.Errorf("right after a start: %d, %q", code, message)
	}
}
