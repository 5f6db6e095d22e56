// Command userns-shim is a CRI runtime that gives pods user namespaces of their own, on
// containerd. The package reads the configuration, wires the parts together, and holds the
// operator's subcommands; it decides nothing about pods.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cmd := rootCommand()
	if err := cmd.ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintf(os.Stderr, "userns-shim: %v\n", err)
		}
		stop()
		os.Exit(exitCode(err))
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "userns-shim",
		Short: "A Kubernetes CRI runtime that gives pods user namespaces of their own, on containerd",
		Long: `userns-shim serves CRI to kubelet and runs pods on containerd. Each pod with
hostUsers: false gets 65,536 host ids that no other pod of the node has.`,
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(serveCommand(), poolCommand(), doctorCommand(), selftestCommand(), selftestInsideCommand(), configCommand(), agentCommand(), completionCommand(), installCommand(), uninstallCommand(), manCommand(), versionCommand())
	helpWithExitCodes(root)
	strictHelp(root)
	return group(root)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), version.Version)
		},
	}
}
