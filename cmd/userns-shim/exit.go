package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
)

// Exit codes beside 0, for scripts and units.
const (
	// exitFailure is any failure that has no code of its own.
	exitFailure = 1
	// exitUsage is a wrong flag, argument or configuration: trying again does not help.
	exitUsage = 2
	// exitFindings and exitUnknown are those of commands that check something, as node-problem-detector and others
	// take them: something is wrong, or nothing is known.
	exitFindings = 1
	exitUnknown  = 2
)

// codedError is an error with an exit code of its own.
type codedError struct {
	code int
	err  error
}

func (e codedError) Error() string { return e.err.Error() }
func (e codedError) Unwrap() error { return e.err }

// errSilent has been told already, on standard output.
var errSilent = errors.New("there are findings")

// usageError is an error that its user can mend on the command line or in the configuration.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// exitCode is that of an error. What the daemon finds wrong with a request is the command line's fault as much as what is found here.
func exitCode(err error) int {
	var usage usageError
	var coded codedError
	switch {
	case errors.As(err, &usage), errors.Is(err, admin.ErrInvalid):
		return exitUsage
	case errors.As(err, &coded):
		return coded.code
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

// group makes a command that only holds others refuse what is none of them; cobra prints its help and exits with 0.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return usageError{fmt.Errorf("%q is no command of %s; see %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// strictHelp makes cobra's command help refuse what it does not know; by itself it prints the help of another command and exits
// with 0.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "help" {
			continue
		}
		cmd.Args = func(_ *cobra.Command, args []string) error {
			if found, rest, err := root.Find(args); err != nil || len(rest) > 0 {
				return usageError{fmt.Errorf("%q is no command of %s; see %s --help", strings.Join(args, " "), root.Name(), found.CommandPath())}
			}
			return nil
		}
	}
}
