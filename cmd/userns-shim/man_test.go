package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// manual runs userns-shim man and returns the pages by name.
func manual(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	root := rootCommand()
	root.SetArgs([]string{"man", dir})
	root.SetErr(io.Discard)
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		pages[e.Name()] = string(data)
	}
	return pages
}

// TestManual: every command that help lists has a page, with the date that is asked for; two runs are alike.
func TestManual(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	pages := manual(t)
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-")
		page, ok := pages[name+".8"]
		if !ok || !strings.Contains(page, `.TH "`+strings.ToUpper(name)+`" "8" "Nov 2023"`) {
			t.Errorf("the page of %s begins with %.100q", c.CommandPath(), page)
		}
		if told := strings.Count(page, "\n.SH EXIT STATUS\n"); (told != 1) == !c.HasSubCommands() {
			t.Errorf("the page of %s tells %d times of exit codes", c.CommandPath(), told)
		}
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				check(sub)
			}
		}
	}
	check(rootCommand())
	for name, page := range manual(t) {
		if page != pages[name] {
			t.Errorf("%s is different the second time", name)
		}
	}
}

func TestManualNeedsADate(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	root := rootCommand()
	root.SetArgs([]string{"man", t.TempDir()})
	if err := root.Execute(); err == nil || exitCode(err) != exitUsage {
		t.Errorf("without a date: %v", err)
	}
}
