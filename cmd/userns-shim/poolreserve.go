package main

import (
	"fmt"
	"strings"

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
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := idpool.ParseRange(args[1])
			if err != nil {
				return usageError{err}
			}
			return f.client().Reserve(cmd.Context(), admin.Reservation{Name: args[0], Start: r.Start, Length: r.Length})
		},
	}
}

func poolReleaseCommand(f *poolFlags) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "release <name> | <start>:<length>",
		Short: "Give up a reservation, or take a range out of quarantine",
		Long: `Give up a reservation by its name, or take a range out of quarantine before its time. What
pods have is never released, a reservation that they use neither: remove the pods instead. The
ids of a reservation rest in quarantine then, as a pod's do.

A range in quarantine of which traces are left is refused; "userns-shim pool list" shows
them. --force releases it all the same: a process or a file that still has these ids then
belongs to the next pod that gets the range, and each can reach what is the other's.`,
		Example: `  userns-shim pool release backup-agent
  userns-shim pool release 2113798144:65536`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !strings.Contains(args[0], ":") {
				if force {
					return usageError{fmt.Errorf("--force is for ranges in quarantine; a reservation that pods use cannot be given up")}
				}
				return f.client().Release(cmd.Context(), admin.Release{Name: args[0]})
			}
			r, err := idpool.ParseRange(args[0])
			if err != nil {
				return usageError{err}
			}
			return f.client().Release(cmd.Context(), admin.Release{Start: r.Start, Length: r.Length, Force: force})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "release a range in quarantine although processes or layers of its last pod are left")
	return cmd
}
