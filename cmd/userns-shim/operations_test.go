package main

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/userns-shim/userns-shim/internal/config"
)

// The page for the person on call, and the alerts that send there.
const (
	operationsPage = "../../docs/operations.md"
	alertRules     = "../../manifests/monitoring/prometheusrule.yaml"
	runbook        = "https://github.com/userns-shim/userns-shim/blob/main/docs/operations.md#"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// anchors are the names by which GitHub links to a page's headings.
func anchors(page string) []string {
	var found []string
	drop := regexp.MustCompile(`[^a-z0-9 _-]`)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(withoutCode(page), -1) {
		name := drop.ReplaceAllString(strings.ToLower(heading[1]), "")
		found = append(found, strings.ReplaceAll(name, " ", "-"))
	}
	return found
}

var codeBlock = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```$")

func withoutCode(page string) string { return codeBlock.ReplaceAllString(page, "") }

// TestEveryAlertHasItsSection on the page, under the name that its runbook_url has; and links within the page go somewhere.
func TestEveryAlertHasItsSection(t *testing.T) {
	page := readFile(t, operationsPage)
	known := anchors(page)
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert       string
					Annotations map[string]string
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(readFile(t, alertRules)), &rules); err != nil {
		t.Fatal(err)
	}
	alerts := 0
	for _, group := range rules.Spec.Groups {
		for _, rule := range group.Rules {
			alerts++
			anchor, ok := strings.CutPrefix(rule.Annotations["runbook_url"], runbook)
			if !ok || anchor != strings.ToLower(rule.Alert) {
				t.Errorf("alert %s has runbook_url %q", rule.Alert, rule.Annotations["runbook_url"])
			}
			if !slices.Contains(known, anchor) {
				t.Errorf("alert %s has no section %q", rule.Alert, anchor)
			}
		}
	}
	if alerts == 0 {
		t.Error("there are no alerts")
	}
	for _, name := range known {
		if strings.HasPrefix(name, "usernsshim") && !strings.Contains(strings.ToLower(readFile(t, alertRules)), "alert: "+name+"\n") {
			t.Errorf("section %q is of no alert", name)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains(known, link[1]) {
			t.Errorf("a link goes to #%s, which is no heading", link[1])
		}
	}
}

// shellCommands are the lines of the page's shell blocks, without comments.
func shellCommands(page string) []string {
	var found []string
	for _, block := range codeBlock.FindAllStringSubmatch(page, -1) {
		if block[1] != "sh" {
			continue
		}
		for line := range strings.Lines(block[2]) {
			line, _, _ = strings.Cut(line, " #")
			if line = strings.TrimSpace(line); line != "" {
				found = append(found, line)
			}
		}
	}
	return found
}

// checkCommand says why userns-shim would refuse the words of a command line before it does anything.
func checkCommand(words []string) error {
	cmd, err := parseCommand(words)
	if err != nil {
		return err
	}
	if cmd.HasSubCommands() {
		return usageError{pflag.ErrHelp}
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// TestSettingsOfThePageExist in the configuration file.
func TestSettingsOfThePageExist(t *testing.T) {
	text, err := yaml.Marshal(config.Default())
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := yaml.Unmarshal(text, &settings); err != nil {
		t.Fatal(err)
	}
	pool, _ := settings["idPool"].(map[string]any)
	found := regexp.MustCompile(`idPool\.([A-Za-z]+)`).FindAllStringSubmatch(readFile(t, operationsPage), -1)
	for _, name := range found {
		if _, ok := pool[name[1]]; !ok {
			t.Errorf("the configuration file has no %s", name[0])
		}
	}
	if len(found) == 0 {
		t.Error("the page names no setting")
	}
	// The page says that the status page is on loopback by default.
	listen, _ := settings["metricsListen"].(string)
	if addr, err := netip.ParseAddrPort(listen); err != nil || !addr.Addr().IsLoopback() {
		t.Errorf("by default metricsListen is %q: %v", listen, err)
	}
}

// parseCommand finds the command of a command line, and gives it its flags.
func parseCommand(words []string) (*cobra.Command, error) {
	cmd, rest, err := rootCommand().Find(words)
	if err != nil {
		return nil, err
	}
	cmd.InitDefaultHelpFlag()
	return cmd, cmd.ParseFlags(rest)
}
