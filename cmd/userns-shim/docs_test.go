package main

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages are all that the project writes for its users.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(names) == 0 {
		t.Fatalf("docs has the pages %v, %v", names, err)
	}
	out := map[string]string{}
	for _, name := range append(names, "../../README.md") {
		out[strings.TrimPrefix(name, "../../")] = readFile(t, name)
	}
	return out
}

var inlineCode = regexp.MustCompile("`([^`\n]+)`")

// code are the words that a page shows as code: the commands of its shell blocks, and what stands in the text.
func code(page string) (commands, inline []string) {
	for _, line := range shellCommands(page) {
		for part := range strings.SplitSeq(strings.ReplaceAll(line, "&&", "|"), "|") {
			part, _, _ = strings.Cut(part, " >") // where its output goes
			commands = append(commands, strings.TrimSpace(part))
		}
	}
	for _, span := range inlineCode.FindAllStringSubmatch(withoutCode(page), -1) {
		inline = append(inline, span[1])
	}
	return commands, inline
}

// TestCommandsOfThePagesExist, with their flags and, in shell blocks, the number of their arguments. In the text a command can
// be named without its arguments.
func TestCommandsOfThePagesExist(t *testing.T) {
	for name, page := range pages(t) {
		commands, inline := code(page)
		checked := 0
		for _, line := range commands {
			if words, ok := strings.CutPrefix(line, "userns-shim "); ok {
				checked++
				if err := checkCommand(strings.Fields(words)); err != nil {
					t.Errorf("%s: %s: %v", name, line, err)
				}
			}
		}
		for _, span := range inline {
			if words, ok := strings.CutPrefix(span, "userns-shim "); ok {
				checked++
				if err := checkName(strings.Fields(words)); err != nil {
					t.Errorf("%s: %s: %v", name, span, err)
				}
			}
		}
		if least, ok := map[string]int{"docs/operations.md": 20, "docs/commands.md": 15, "docs/configuration.md": 3, "README.md": 2}[name]; ok && checked < least {
			t.Errorf("%s names %d commands, want %d at least", name, checked, least)
		}
	}
	for _, wrong := range []string{"pool", "pool stat", "pool who", "pool status --colour", "pool release a b", "nothing"} {
		if err := checkCommand(strings.Fields(wrong)); err == nil {
			t.Errorf("%q passes for a command", wrong)
		}
	}
	for _, wrong := range []string{"pool stat", "pool who --colour", "nothing", "--colour"} {
		if err := checkName(strings.Fields(wrong)); err == nil {
			t.Errorf("%q passes for the name of a command", wrong)
		}
	}
}

// checkName says why words do not begin with a command and its flags.
func checkName(words []string) error {
	cmd, err := parseCommand(words)
	if err == nil && cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
		return errors.New("no such command")
	}
	return err
}

// TestTargetsOfThePagesExist in the Makefile.
func TestTargetsOfThePagesExist(t *testing.T) {
	makefile := readFile(t, "../../Makefile")
	checked := 0
	for name, page := range pages(t) {
		commands, inline := code(page)
		for _, line := range append(commands, inline...) {
			words, ok := strings.CutPrefix(line, "make ")
			if !ok {
				continue
			}
			for _, target := range strings.Fields(words) {
				checked++
				if variable, _, ok := strings.Cut(target, "="); ok {
					target = "$(" + variable + ")"
				} else {
					target = "\n" + target + ": "
				}
				if !strings.Contains(makefile+readFile(t, "../../hack/tier.sh"), strings.NewReplacer("$(LONG)", "${LONG:", "$(RUN)", "${RUN:").Replace(target)) {
					t.Errorf("%s: %s: the Makefile has no %q", name, line, target)
				}
			}
		}
	}
	if checked < 5 {
		t.Errorf("the pages name %d targets", checked)
	}
}

// TestMakefileDefinesBeforeUse holds that no rule has less prerequisites than its line says: make takes a variable that is defined
// further down for empty there, so that a fresh clone lacks the tool.
func TestMakefileDefinesBeforeUse(t *testing.T) {
	assignment, use := regexp.MustCompile(`^([A-Z_]+) :?= `), regexp.MustCompile(`\$\(([A-Z_]+)\)`)
	defined, used := map[string]bool{}, 0
	for _, line := range strings.Split(readFile(t, "../../Makefile"), "\n") {
		if strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "#") {
			continue
		}
		for _, name := range use.FindAllStringSubmatch(line, -1) {
			used++
			if !defined[name[1]] {
				t.Errorf("%q uses %s, which is defined after it", line, name[1])
			}
		}
		if name := assignment.FindStringSubmatch(line); name != nil {
			defined[name[1]] = true
		}
	}
	if used < 10 {
		t.Errorf("the Makefile uses %d variables outside of recipes", used)
	}
}

var ownPath = regexp.MustCompile(`(?:^|\s)((?:cmd|docs|hack|internal|manifests|packaging|pkg|test)/[\w./*-]+)`)

// TestFilesOfThePagesExist in the repository, those that links go to included.
func TestFilesOfThePagesExist(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	checked := 0
	for name, page := range pages(t) {
		commands, inline := code(page)
		var found []string
		for _, text := range append(commands, inline...) {
			for _, path := range ownPath.FindAllStringSubmatch(text, -1) {
				found = append(found, path[1])
			}
		}
		for _, target := range link.FindAllStringSubmatch(withoutCode(page), -1) {
			found = append(found, filepath.Join(filepath.Dir(name), target[1]))
		}
		for _, path := range found {
			checked++
			if there, err := filepath.Glob(filepath.Join("../..", path)); err != nil || len(there) == 0 {
				t.Errorf("%s names %s, which is not there", name, path)
			}
		}
	}
	if checked < 20 {
		t.Errorf("the pages name %d files", checked)
	}
}
