package main

import (
	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

func poolReserveCommand(f *poolFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "reserve <name> <start>:<length>",
		Short: "Keep host ids from all pods, under a name",
		Long: `Keep host ids from all pods, under a name: ids that something else on this node uses, or that
pods are to share. What a pod has cannot be reserved. Reserving the same ids under the same name
again is no error.

Pods share the ids that name the reservation by the annotation userns-shim.io/reservation, where
their runtime handler allows that (its option reservations). They can reach each other's files
and processes.`,
		Example: `  userns-shim pool reserve backup-agent 2113798144:65536`,
		Args:    exactArgs(2),

		ValidArgsFunction: f.completeReserve,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := idpool.ParseRange(args[1])
			if err != nil {
				return usageError{err}
			}
			return f.client().Reserve(cmd.Context(), admin.Reservation{Name: args[0], Start: r.Start, Length: r.Length})
		},
	}
}
