package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/config"
)

// poolFlags are common to the pool commands.
type poolFlags struct {
	state  string
	output string
}

func poolCommand() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "pool",
		Short: "Look at the node's pool of host ids",
		Long:  "Look at the node's pool of host ids, by asking the userns-shim that runs on this node.",
	}
	cmd.PersistentFlags().StringVar(&f.state, "state", config.Default().State, "state `directory` of the running userns-shim")
	cmd.PersistentFlags().StringVarP(&f.output, "output", "o", "text", "`format`: text or json")
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error {
		if f.output != "text" && f.output != "json" {
			return usageError{fmt.Errorf("output format %q: want text or json", f.output)}
		}
		return nil
	}
	cmd.AddCommand(poolStatusCommand(&f), poolListCommand(&f))
	return cmd
}

func (f *poolFlags) client() *admin.Client { return admin.NewClient(admin.SocketPath(f.state)) }

// print writes v as JSON, or as the table that text draws.
func (f *poolFlags) print(w io.Writer, v any, text func(*tabwriter.Writer)) error {
	if f.output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	text(table)
	return table.Flush()
}

func poolStatusCommand(f *poolFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Count the pool's ranges of 65,536 ids",
		Example: `  userns-shim pool status
  userns-shim pool status -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := f.client().PoolStatus(cmd.Context())
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), status, func(t *tabwriter.Writer) {
				fmt.Fprintln(t, "SEGMENT\tCAPACITY\tFREE\tALLOCATED\tQUARANTINED\tRESERVED")
				for _, s := range status.Segments {
					fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\n", s.Name, s.Capacity, s.Free, s.Allocated, s.Quarantined, s.Reserved)
				}
			})
		},
	}
}

func poolListCommand(f *poolFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List every range that is not free, with its pod",
		Example: `  userns-shim pool list
  userns-shim pool list -o json | jq -r '.[] | select(.state == "allocated") | .podName'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := f.client().PoolRanges(cmd.Context())
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), list, func(t *tabwriter.Writer) {
				fmt.Fprintln(t, "RANGE\tSTATE\tSEGMENT\tPOD\tSINCE")
				for _, r := range list {
					fmt.Fprintf(t, "%d:%d\t%s\t%s\t%s\t%s ago\n", r.Start, r.Length, r.State, r.Segment, owner(r), time.Since(r.Since).Round(time.Second))
				}
			})
		},
	}
}

// owner is the best name of who has a range.
func owner(r admin.Range) string {
	switch {
	case r.PodName != "":
		return r.PodNamespace + "/" + r.PodName
	case r.Reservation != "":
		return "reserved as " + r.Reservation
	}
	return r.Pod
}
