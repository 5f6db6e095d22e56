package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// completeTime bounds what a completion asks the daemon: somebody waits with a finger on the tab key.
const completeTime = 2 * time.Second

// completionCommand stands in the place of cobra's, which takes any words for help that was asked for.
func completionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "completion",
		Short: "Print a script that completes commands in a shell",
		Long: `Print a script that completes commands, flags and their values in a shell, and of the pool what the
running userns-shim has: ranges, reservations and foreign owners.`,
	}
	for shell, into := range map[string]struct {
		print func(*cobra.Command, io.Writer) error
		place string
	}{
		"bash":       {func(c *cobra.Command, w io.Writer) error { return c.GenBashCompletionV2(w, true) }, "> /etc/bash_completion.d/userns-shim"},
		"zsh":        {(*cobra.Command).GenZshCompletion, "> /usr/local/share/zsh/site-functions/_userns-shim"},
		"fish":       {func(c *cobra.Command, w io.Writer) error { return c.GenFishCompletion(w, true) }, "> /etc/fish/completions/userns-shim.fish"},
		"powershell": {(*cobra.Command).GenPowerShellCompletionWithDesc, "| Out-String | Invoke-Expression"},
	} {
		cmd.AddCommand(&cobra.Command{
			Use:     shell,
			Short:   "Print the script for " + shell,
			Example: "  userns-shim completion " + shell + " " + into.place,
			Args:    noArgs,
			RunE:    func(cmd *cobra.Command, _ []string) error { return into.print(cmd.Root(), cmd.OutOrStdout()) },
		})
	}
	return group(cmd)
}

// fixed completes one of a few words.
func fixed(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// completeFlags completes flags that take one of a few words, or a directory or file.
func completeFlags(cmd *cobra.Command, flags map[string]cobra.CompletionFunc) {
	for name, complete := range flags {
		if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
			panic(fmt.Sprintf("complete --%s of %s: %v", name, cmd.Name(), err)) // a flag that is not there
		}
	}
}

// ranges asks the daemon; without one there is nothing to complete.
func (f *poolFlags) ranges(cmd *cobra.Command) []admin.Range {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	list, err := f.client().PoolRanges(ctx)
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
		return nil
	}
	return list
}

// completeReleasable completes what pool release takes: reservations, and ranges in quarantine.
func (f *poolFlags) completeReleasable(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []cobra.Completion
	for _, r := range f.ranges(cmd) {
		switch r.State {
		case string(idpool.StateReserved):
			out = append(out, cobra.CompletionWithDesc(r.Reservation, fmt.Sprintf("reserved: %d:%d", r.Start, r.Length)))
		case string(idpool.StateQuarantined):
			words := "quarantined"
			if len(r.Traces) > 0 {
				words += ", left: " + strings.Join(r.Traces, ",")
			}
			out = append(out, cobra.CompletionWithDesc(fmt.Sprintf("%d:%d", r.Start, r.Length), words))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeReserve completes, as the ids to reserve, those of foreign owners; the name is anybody's own.
func (f *poolFlags) completeReserve(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	check, err := f.client().PoolCheck(ctx, false)
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
	}
	var out []cobra.Completion
	for _, finding := range check.Findings {
		if strings.HasPrefix(finding.Code, "foreign-") && finding.Length > 0 && finding.Pod == "" {
			slots := wholeSlots(idpool.Range{Start: finding.Start, Length: finding.Length})
			out = append(out, cobra.CompletionWithDesc(slots.String(), finding.Message))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeWho completes the ids with which the pods' ranges begin; a path is the shell's own to complete.
func (f *poolFlags) completeWho(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch {
	case len(args) > 0:
		return nil, cobra.ShellCompDirectiveNoFileComp
	case strings.HasPrefix(typed, ".") || strings.HasPrefix(typed, "/"):
		return nil, cobra.ShellCompDirectiveDefault
	}
	var out []cobra.Completion
	for _, r := range f.ranges(cmd) {
		out = append(out, cobra.CompletionWithDesc(strconv.FormatUint(uint64(r.Start), 10), r.State+": "+owner(r)))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
