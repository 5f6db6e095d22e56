package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/userns-shim/userns-shim/internal/version"
)

// manCommand writes what packages install below share/man/man8. Their date is that of SOURCE_DATE_EPOCH, so that two
// builds are alike; without it the pages would have the time of the build.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages of all commands",
		Hidden: true,
		Args:   exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Getenv("SOURCE_DATE_EPOCH") == "" {
				return usageError{errors.New("SOURCE_DATE_EPOCH, the pages' date in seconds, is not set")}
			}
			root := cmd.Root()
			root.InitDefaultCompletionCmd()
			root.DisableAutoGenTag = true
			tellExitCodes(root)
			err := doc.GenManTree(root, &doc.GenManHeader{
				Section: "8",
				Source:  "userns-shim " + version.Version,
				Manual:  "userns-shim",
			}, args[0])
			if err != nil {
				return fmt.Errorf("write manual pages to %s: %w", args[0], err)
			}
			return nil
		},
	}
}

// tellExitCodes puts what --help says of a command's exit codes into its page.
func tellExitCodes(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		tellExitCodes(sub)
	}
	if cmd.HasSubCommands() {
		return
	}
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "."
	}
	cmd.Long += "\n\n# EXIT STATUS\n"
	for line := range strings.Lines(exitCodesOf(cmd)) {
		code, meaning, _ := strings.Cut(strings.TrimSpace(line), "  ")
		cmd.Long += "\n**" + code + "** " + strings.TrimSpace(meaning) + "\n"
	}
}
