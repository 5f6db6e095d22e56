package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/foreign"
)

// exportOwner is the name that stands in exported lines. No user needs to have it: tools that give out subordinate
// ids keep off every line of the files, whoever owns it.
const exportOwner = foreign.ExportOwner

func poolExportCommand(f *poolFlags) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the pool for other programs",
		Long: `Print the pool for other programs: as lines of /etc/subuid and /etc/subgid, so that useradd,
Podman and others keep off its ids, or all that is known of its ranges as JSON.`,
		Example: `  userns-shim pool export --format subuid | sudo tee -a /etc/subuid /etc/subgid
  userns-shim pool export --format json > ranges.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("output") {
				return usageError{errors.New("export has formats of its own: say --format json instead of -o")}
			}
			switch format {
			case "subuid":
				status, err := f.client().PoolStatus(cmd.Context())
				if err != nil {
					return err
				}
				return exportSubuid(cmd.OutOrStdout(), status)
			case "json":
				ranges, err := f.client().PoolRanges(cmd.Context())
				if err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), ranges)
			}
			return usageError{fmt.Errorf("export format %q: want subuid or json", format)}
		},
	}
	cmd.Flags().StringVar(&format, "format", "subuid", "`format`: subuid or json")
	completeFlags(cmd, map[string]cobra.CompletionFunc{"format": fixed("subuid", "json")})
	return cmd
}

// exportSubuid prints the pool's own extents; kubelet's are in the files already.
func exportSubuid(w io.Writer, status admin.PoolStatus) error {
	var lines strings.Builder
	for _, s := range status.Segments {
		if s.Name != string(idpool.SegmentPool) {
			continue
		}
		for _, e := range s.Extents {
			fmt.Fprintf(&lines, "%s:%d:%d\n", exportOwner, e.Start, e.Length)
		}
	}
	_, err := io.WriteString(w, lines.String())
	return err
}
