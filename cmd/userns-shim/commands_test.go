package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/foreign"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/reconcile"
)

const commandsPage = "../../docs/commands.md"

// commands are those that do something, hidden ones and cobra's own left out.
func commands(cmd *cobra.Command) []*cobra.Command {
	if cmd.Hidden || cmd.Name() == "completion" || cmd.Name() == "help" {
		return nil
	}
	if !cmd.HasSubCommands() {
		return []*cobra.Command{cmd}
	}
	var all []*cobra.Command
	for _, c := range cmd.Commands() {
		all = append(all, commands(c)...)
	}
	return all
}

// TestEveryCommandTellsItsExitCodes in its help, and stands on the page.
func TestEveryCommandTellsItsExitCodes(t *testing.T) {
	page := readFile(t, commandsPage)
	var paths []string
	for _, cmd := range commands(rootCommand()) {
		path := cmd.CommandPath()
		paths = append(paths, path)
		help, _, code := command(t, "", append(strings.Fields(path)[1:], "--help")...)
		for _, start := range []string{"0  ", "1  ", "2  "} {
			if !strings.Contains(help, "\n  "+start) {
				t.Errorf("%s --help does not tell of the exit code %s", path, start)
			}
		}
		if strings.Count(strings.ToLower(help), "exit codes") != 1 || code != 0 {
			t.Errorf("%s --help exits with %d and tells of exit codes twice:\n%s", path, code, help)
		}
		row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(path) + "` \\|[^|]+\\|([^|]*)\\|$").FindStringSubmatch(page)
		if row == nil {
			t.Errorf("%s has no row in %s", path, commandsPage)
			continue
		}
		if own := strings.TrimSpace(row[1]) != ""; own != (exitCodesOf(cmd) != usualExitCodes) && path != "userns-shim pool release" {
			t.Errorf("%s: the page tells of exit codes of its own: %t", path, own)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(userns-shim [^`]+)`").FindAllStringSubmatch(page, -1) {
		if !slices.Contains(paths, row[1]) {
			t.Errorf("%s tells of %q, which is no command", commandsPage, row[1])
		}
	}
}

// TestEveryFindingIsOnThePage for the person on call.
func TestEveryFindingIsOnThePage(t *testing.T) {
	page := readFile(t, commandsPage)
	found := []string{codeUnlimited, "scan-incomplete", "extents-meet", "extent-overlap", "extent-signed", "leak-*", "leaks-unknown"}
	for _, kind := range foreign.Kinds() {
		found = append(found, "foreign-"+string(kind))
	}
	for _, kind := range []idpool.FindingKind{idpool.FindingOutside, idpool.FindingNotStrict, idpool.FindingSigned} {
		found = append(found, string(kind))
	}
	for _, code := range found {
		if !strings.Contains(page, "`"+code+"`") {
			t.Errorf("%s does not tell of %s", commandsPage, code)
		}
	}
	if len(reconcile.Kinds()) == 0 {
		t.Error("there are no kinds of leaks")
	}
}

func TestWhatIsNoCommandIsWrongUsage(t *testing.T) {
	for _, line := range []string{
		"nonsense", "pool nonsense", "config nonsense", "pool status nonsense", "doctor --nonsense", "doctor -o bad", "pool check --severity bad",
		"pool list -o bad", "pool who", "pool who x", "pool release a:b", "pool release -x", "pool release .x", "pool release --force name", "pool reserve x",
		"pool reserve .x 65536:65536", "pool reserve a:b 65536:65536", "pool reserve x 0:0", "pool reserve x 65536", "pool reserve x 4294967295:65536",
		"pool export --format bad", "pool export -o json", "pool rebuild --config /no/such/file", "serve --config /no/such/file", "serve --listen nonsense",
		"config validate /no/such/file", "config migrate --from bad /dev/null", "agent --listen bad", "agent --metrics bad", "selftest -o bad",
		"selftest --endpoint bad", "selftest --ids bad", "completion nonsense", "completion bash nonsense", "help nonsense", "help pool nonsense", "version nonsense",
	} {
		if out, errs, code := command(t, "", strings.Fields(line)...); code != exitUsage {
			t.Errorf("%q exits with %d: %s%s", line, code, out, errs)
		}
	}
	// What the daemon finds wrong with a request, and what it refuses because of what there is.
	for kind, want := range map[error]int{admin.ErrInvalid: exitUsage, admin.ErrConflict: exitFailure, admin.ErrNotFound: exitFailure} {
		if got := exitCode(fmt.Errorf("reserve: %w", admin.Refuse(kind, errors.New("words")))); got != want {
			t.Errorf("%v exits with %d, want %d", kind, got, want)
		}
	}
	for _, line := range []string{"help", "help pool", "help pool who", "completion", "completion bash"} {
		if out, errs, code := command(t, "", strings.Fields(line)...); code != 0 || out == "" {
			t.Errorf("%q exits with %d: %s", line, code, errs)
		}
	}
	if out, _, code := command(t, "", "pool"); code != 0 || !strings.Contains(out, "Available Commands:") {
		t.Errorf("pool alone exits with %d and prints %s", code, out)
	}
}

func TestCompletionOfWords(t *testing.T) {
	for args, want := range map[string]string{
		"pool status -o ":        "text json yaml",
		"pool check --severity ": "error warning info",
		"pool export --format ":  "subuid json",
		"doctor --severity ":     "error warning unknown info",
		"config migrate --from ": "auto containerd userns-shim",
	} {
		out, _, code := command(t, "", append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if got := strings.Join(strings.Fields(strings.Split(out, ":")[0]), " "); got != want || code != 0 {
			t.Errorf("%q completes to %q, want %q", args, got, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out, _, code := command(t, "", "completion", shell); code != 0 || !strings.Contains(out, "userns-shim") {
			t.Errorf("completion %s exits with %d", shell, code)
		}
	}
	// Without a daemon nothing is completed, and nothing fails.
	if out, _, code := command(t, "", "__complete", "pool", "release", "--state", t.TempDir(), ""); code != 0 || !strings.HasPrefix(out, ":4") {
		t.Errorf("without a daemon: %d, %s", code, out)
	}
}

func TestBrokenNamesWhatIsLeft(t *testing.T) {
	ids := idpool.Range{Start: 65536, Length: 65536}
	look := &hostids.Look{
		Namespaces: []hostids.Namespace{{UIDs: []idpool.Range{ids}, Process: hostids.Process{PID: 12, Command: "nginx"}}},
		Holders:    []hostids.Holder{{ID: 65540, Process: hostids.Process{PID: 13, Command: "cron"}}},
	}
	words := broken(ids, traceWords([]string{"namespace", "credentials", "layers", "unknown"}, ids, look))
	for _, want := range []string{"65536:65536", "process 12 (nginx)", "process 13 (cron), which has the id 65540", "writable layers", "nobody has looked", "each can read, change and signal"} {
		if !strings.Contains(words, want) {
			t.Errorf("no %q in\n%s", want, words)
		}
	}
	if words := broken(ids, nil); !strings.Contains(words, "breaks nothing") {
		t.Errorf("of nothing: %s", words)
	}
}

func TestWholeSlots(t *testing.T) {
	for in, want := range map[idpool.Range]idpool.Range{
		{Start: 65536, Length: 65536}:      {Start: 65536, Length: 65536},
		{Start: 65541, Length: 1}:          {Start: 65536, Length: 65536},
		{Start: 131071, Length: 2}:         {Start: 65536, Length: 131072},
		{Start: 0xFFFF0005, Length: 100}:   {Start: 0xFFFF0000, Length: 65535},
		{Start: 65536, Length: 0xFFFEFFFF}: {Start: 65536, Length: 0xFFFEFFFF},
	} {
		if got := wholeSlots(in); got != want {
			t.Errorf("%s touches %s, want %s", in, got, want)
		}
	}
}

var _ admin.Pool = poolView{}
