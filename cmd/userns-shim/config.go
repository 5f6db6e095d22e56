package main

import (
	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/config"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Work with the configuration file",
	}
	cmd.AddCommand(configDefaultCommand(), configValidateCommand(), configMigrateCommand())
	return group(cmd)
}

func configDefaultCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "default",
		Short: "Print the default configuration as commented YAML",
		Long: `Print a configuration file that has every key with its default and a comment.
A file need only have the keys that differ.`,
		Example: "  userns-shim config default > /etc/userns-shim/config.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.DefaultFile())
			return err
		},
	}
}
