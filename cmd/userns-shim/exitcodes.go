package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// exitCodes is the annotation with the exit codes of a command that differ from those of all others: lines of a code and words.
const exitCodes = "exit codes"

// usualExitCodes are those of commands without that annotation.
const usualExitCodes = `0  done
1  failed or refused; standard error says why
2  the command line or the configuration file is wrong: trying again does not help`

// withExitCodes gives a command exit codes of its own.
func withExitCodes(cmd *cobra.Command, codes string) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[exitCodes] = codes
	return cmd
}

// exitCodesOf returns those of a command, one to a line.
func exitCodesOf(cmd *cobra.Command) string {
	if own := cmd.Annotations[exitCodes]; own != "" {
		return own
	}
	return usualExitCodes
}

// helpWithExitCodes makes --help of each command tell its exit codes.
func helpWithExitCodes(root *cobra.Command) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		help(cmd, args)
		if !cmd.HasSubCommands() {
			fmt.Fprintf(cmd.OutOrStdout(), "\nExit codes:\n  %s\n", strings.ReplaceAll(exitCodesOf(cmd), "\n", "\n  "))
		}
	})
}
