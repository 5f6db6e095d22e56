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
	cmd.AddCommand(&cobra.Command{
		Use:     "default",
		Short:   "Print the default configuration as YAML",
		Example: "  userns-shim config default > /etc/userns-shim/config.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := config.Default().Marshal()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	})
	return cmd
}
