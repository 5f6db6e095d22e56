package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

func poolCheckCommand(f *poolFlags) *cobra.Command {
	var severity string
	var fresh, brief bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Tell what is wrong with the pool: foreign owners of its ids, leaked ranges, extents that overlap",
		Long: `Tell what is wrong with the pool: others on the node that have ids of it, ranges about
which records and node disagree, and extents that overlap each other or what other
programs hand out. Each finding says what can be done.

The daemon looks every idPool.scanInterval and idPool.reconcileInterval, and this command
shows what it found last; --fresh makes it look now, which takes 15 seconds at most for
owners and a minute for leaked ranges.

The first line sums up in 80 characters at most, as node-problem-detector takes it;
--brief prints that line alone.`,
		Example: `  userns-shim pool check
  userns-shim pool check --severity error
  userns-shim pool check --fresh -o json | jq -r '.findings[].message'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit := slices.Index(severities, severity)
			if limit < 0 {
				return usageError{fmt.Errorf("severity %q: want one of %s", severity, strings.Join(severities, ", "))}
			}
			check, err := f.client().PoolCheck(cmd.Context(), fresh)
			if err != nil {
				if brief {
					fmt.Fprintln(cmd.OutOrStdout(), short("unknown: "+err.Error()))
				}
				return codedError{exitUnknown, err}
			}
			bad := slices.IndexFunc(check.Findings, func(x admin.Finding) bool { return slices.Index(severities, x.Severity) <= limit })
			if brief {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), summary(check))
			} else {
				err = f.printCheck(cmd.OutOrStdout(), check)
			}
			if err != nil {
				return err
			}
			switch {
			case bad >= 0:
				return codedError{exitFindings, errSilent}
			case unlooked(check) != "":
				return codedError{exitUnknown, errors.New(unlooked(check) + " were not looked for yet; --fresh looks now")}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&severity, "severity", admin.SeverityWarning, "`level` from which on findings make the exit code 1: error, warning or info")
	cmd.Flags().BoolVar(&brief, "brief", false, "print the summary alone")
	cmd.Flags().BoolVar(&fresh, "fresh", false, "look now instead of telling what was found last")
	completeFlags(cmd, map[string]cobra.CompletionFunc{"severity": fixed(severities...)})
	return withExitCodes(cmd, `0  there is no finding of --severity or worse
1  there is one
2  it is not known: the daemon does not answer or has not looked yet; or the command line is wrong`)
}

func (f *poolFlags) printCheck(w io.Writer, check admin.Check) error {
	if f.output == "text" {
		if _, err := fmt.Fprintln(w, summary(check)); err != nil || len(check.Findings) == 0 {
			return err
		}
	}
	return f.print(w, check, func(t *tabwriter.Writer) { findingTable(t, check.Findings) })
}

// unlooked names what the daemon has not looked for yet, "" for nothing.
func unlooked(check admin.Check) string {
	switch {
	case check.Scanned.IsZero():
		return "foreign owners of ids"
	case check.Compared.IsZero():
		return "leaked ranges"
	}
	return ""
}

// summaryLength is what node-problem-detector keeps of a plugin's output by default.
const summaryLength = 80

// summary says in one short line what is worst.
func summary(check admin.Check) string {
	count := map[string]int{}
	for _, f := range check.Findings {
		count[f.Severity]++
	}
	if count[admin.SeverityError]+count[admin.SeverityWarning] == 0 {
		if what := unlooked(check); what != "" {
			return "nothing found; " + what + " were not looked for yet"
		}
		return "nothing found, looked " + time.Since(check.Scanned).Round(time.Second).String() + " ago"
	}
	worst := check.Findings[0]
	text := fmt.Sprintf("%d errors, %d warnings: %s", count[admin.SeverityError], count[admin.SeverityWarning], worst.Code)
	if worst.Length > 0 {
		text += fmt.Sprintf(" %d:%d", worst.Start, worst.Length)
	}
	return short(text)
}

func short(text string) string { return text[:min(len(text), summaryLength)] }

func findingTable(t io.Writer, findings []admin.Finding) {
	fmt.Fprintln(t, "\nSEVERITY\tFINDING\tRANGE\tPOD")
	for _, f := range findings {
		ids := "-"
		if f.Length > 0 {
			ids = idpool.Range{Start: f.Start, Length: f.Length}.String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Severity, f.Code, ids, cmp.Or(f.Pod, "-"))
	}
	fmt.Fprintln(t)
	for _, f := range findings {
		fmt.Fprintf(t, "%s: %s\n", f.Code, f.Message)
		if f.Remedy != "" {
			fmt.Fprintf(t, "    -> %s\n", f.Remedy)
		}
	}
}
