package main

import (
	"fmt"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// reservationName is what a shell takes as one word, and no range.
var reservationName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// checkReservationName is asked by the commands, which need no daemon to know better, and by the daemon, which has other clients.
func checkReservationName(name string) error {
	if !reservationName.MatchString(name) {
		return fmt.Errorf("reservation name %q: want up to 63 letters, digits, dots, dashes and underscores, the first of them a letter or digit", name)
	}
	return nil
}

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
			if err := checkReservationName(args[0]); err != nil {
				return usageError{err}
			}
			r, err := idpool.ParseRange(args[1])
			if err != nil {
				return usageError{err}
			}
			return f.client().Reserve(cmd.Context(), admin.Reservation{Name: args[0], Start: r.Start, Length: r.Length})
		},
	}
}
