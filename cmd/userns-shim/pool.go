package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/pkg/idpool"
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
		Short: "Look at the node's pool of host ids, and change it",
		Long: `Look at the node's pool of host ids, and change it, by asking the userns-shim that runs
on this node through a socket that only root can open.`,
	}
	cmd.PersistentFlags().StringVar(&f.state, "state", config.Default().State, "state `directory` of the running userns-shim")
	cmd.PersistentFlags().StringVarP(&f.output, "output", "o", "text", "`format`: text, json or yaml")
	completeFlags(cmd, map[string]cobra.CompletionFunc{"output": fixed("text", "json", "yaml")})
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains([]string{"text", "json", "yaml"}, f.output) {
			return usageError{fmt.Errorf("output format %q: want text, json or yaml", f.output)}
		}
		return nil
	}
	cmd.AddCommand(poolStatusCommand(&f), poolListCommand(&f), poolWhoCommand(&f), poolCheckCommand(&f), poolReserveCommand(&f), poolReleaseCommand(&f),
		poolExportCommand(&f), poolRebuildCommand(&f))
	return group(cmd)
}

func (f *poolFlags) client() *admin.Client { return admin.NewClient(admin.SocketPath(f.state)) }

// print writes v as JSON or YAML, or as the table that text draws.
func (f *poolFlags) print(w io.Writer, v any, text func(*tabwriter.Writer)) error {
	switch f.output {
	case "json":
		return printJSON(w, v)
	case "yaml":
		out, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(out)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	text(table)
	return table.Flush()
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false) // remedies are read as they stand
	return enc.Encode(v)
}

func poolStatusCommand(f *poolFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Count the pool's ranges of 65,536 ids, and tell when they run out",
		Long: `Count the pool's ranges of 65,536 ids by segment: pool is what userns-shim draws from,
kubelet what kubelet draws from, and external what pods have outside both.

EMPTY IN is when a segment has nothing free any more if it goes on as in the last hour (idPool.forecastWindow),
and - where nothing says that it will.`,
		Example: `  userns-shim pool status
  userns-shim pool status -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := f.client().PoolStatus(cmd.Context())
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), status, func(t *tabwriter.Writer) {
				fmt.Fprintln(t, "SEGMENT\tCAPACITY\tFREE\tALLOCATED\tQUARANTINED\tRESERVED\tIN USE\tEMPTY IN")
				for _, s := range status.Segments {
					fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", s.Name, s.Capacity, s.Free, s.Allocated, s.Quarantined, s.Reserved, bar(s), emptyIn(s))
				}
			})
		},
	}
}

// emptyIn is the forecast in words.
func emptyIn(s admin.Segment) string {
	switch in := s.PredictedEmptySeconds; {
	case in == nil:
		return "-"
	case *in == 0:
		return "now"
	default:
		return "about " + duration.HumanDuration(time.Duration(*in)*time.Second)
	}
}

// barWidth is that of a bar, in characters.
const barWidth = 20

// bar shows how much of a segment is not free: at least one mark when anything is, and all of them only when
// nothing is left.
func bar(s admin.Segment) string {
	if s.Capacity == 0 {
		return "-"
	}
	used := s.Capacity - s.Free
	marks := used * barWidth / s.Capacity
	if used > 0 && marks == 0 {
		marks = 1
	}
	percent := float64(used) * 100 / float64(s.Capacity)
	return fmt.Sprintf("[%s%s] %.1f%%", strings.Repeat("#", marks), strings.Repeat(".", barWidth-marks), percent)
}

func poolListCommand(f *poolFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List every range that is not free, with its pod",
		Example: `  userns-shim pool list
  userns-shim pool list -o json | jq -r '.[] | select(.state == "allocated") | .podName'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := f.client().PoolRanges(cmd.Context())
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), list, func(t *tabwriter.Writer) { rangeTable(t, list) })
		},
	}
}

func rangeTable(t io.Writer, list []admin.Range) {
	fmt.Fprintln(t, "RANGE\tSTATE\tSEGMENT\tPOD\tSINCE\tTRACES")
	for _, r := range list {
		fmt.Fprintf(t, "%d:%d\t%s\t%s\t%s\t%s ago\t%s\n", r.Start, r.Length, r.State, r.Segment, owner(r),
			time.Since(r.Since).Round(time.Second), cmp.Or(strings.Join(r.Traces, ","), "-"))
	}
}

// owner is the best name of who has a range.
func owner(r admin.Range) string {
	switch {
	case r.PodName != "":
		return r.PodNamespace + "/" + r.PodName
	case r.Reservation != "" && r.State != string(idpool.StateReserved):
		return "was reserved as " + r.Reservation
	case len(r.UsedBy) > 0:
		return "reserved as " + r.Reservation + ", used by " + strings.Join(r.UsedBy, ", ")
	case r.Reservation != "":
		return "reserved as " + r.Reservation
	}
	return r.Pod
}
