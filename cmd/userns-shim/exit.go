package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// Exit codes beside 0, for scripts and units.
const (
	// exitFailure is any failure that has no code of its own.
	exitFailure = 1
	// exitUsage is a wrong flag, argument or configuration: trying again does not help.
	exitUsage = 2
)

// usageError is an error that its user can mend on the command line or in the configuration.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func exitCode(err error) int {
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}

// exactArgs and noArgs are cobra's, with an error of the user's.
func exactArgs(n int) cobra.PositionalArgs { return usageArgs(cobra.ExactArgs(n)) }

func noArgs(cmd *cobra.Command, args []string) error { return usageArgs(cobra.NoArgs)(cmd, args) }

func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
		}
		return nil
	}
}
