package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
)

// releaseFlags are the options of pool release.
type releaseFlags struct{ force, dryRun bool }

func poolReleaseCommand(f *poolFlags) *cobra.Command {
	var r releaseFlags
	cmd := &cobra.Command{
		Use:   "release <name> | <start>:<length>",
		Short: "Give up a reservation, or take a range out of quarantine",
		Long: `Give up a reservation by its name, or take a range out of quarantine before its time. What
pods have is never released, a reservation that they use neither: remove the pods instead. The
ids of a reservation rest in quarantine then, as a pod's do.

A range in quarantine of which traces are left is refused, and the traces are named. --force
releases it all the same, after saying what that breaks: a process or a file that still has
these ids then belongs to the next pod that gets the range, and each can reach what is the
other's. --dry-run says it and does nothing.`,
		Example: `  userns-shim pool release backup-agent
  userns-shim pool release 2113798144:65536
  userns-shim pool release --force --dry-run 2113798144:65536`,
		Args:              exactArgs(1),
		ValidArgsFunction: f.completeReleasable,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !strings.Contains(args[0], ":") {
				if r.force || r.dryRun {
					return usageError{errors.New("--force and --dry-run are for ranges in quarantine; a reservation that pods use cannot be given up")}
				}
				if err := checkReservationName(args[0]); err != nil {
					return usageError{err}
				}
				return toRelease(f.client().Release(cmd.Context(), admin.Release{Name: args[0]}))
			}
			ids, err := idpool.ParseRange(args[0])
			if err != nil {
				return usageError{err}
			}
			return r.release(cmd.Context(), f.client(), ids, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&r.force, "force", false, "release a range in quarantine although processes or layers of its last pod are left")
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "say what a release of the range would break, and do nothing")
	return cmd
}

// release takes a range out of quarantine, and says before what is left of its last pod. What is not in
// quarantine the daemon refuses, so a dry run of that says nothing of what it would break.
func (r releaseFlags) release(ctx context.Context, client *admin.Client, ids idpool.Range, out io.Writer) error {
	ranges, err := client.PoolRanges(ctx)
	if err != nil {
		return err
	}
	left, resting, err := leftOf(ctx, ranges, ids)
	if err != nil {
		return err
	}
	if r.dryRun && !resting {
		return fmt.Errorf("release range %s: it is not in quarantine; userns-shim pool list shows what is", ids)
	}
	if r.dryRun || r.force && len(left) > 0 {
		fmt.Fprintln(out, broken(ids, left))
	}
	if r.dryRun {
		return nil
	}
	err = client.Release(ctx, admin.Release{Start: ids.Start, Length: ids.Length, Force: r.force})
	if resting && errors.Is(err, admin.ErrConflict) { // the daemon has looked once more
		if ranges, err := client.PoolRanges(ctx); err == nil {
			if now, _, err := leftOf(ctx, ranges, ids); err == nil {
				left = now
			}
		}
	}
	if errors.Is(err, admin.ErrConflict) && len(left) > 0 {
		return fmt.Errorf("%w; left are %s: end and remove them, or say --force", err, strings.Join(left, "; "))
	}
	if resting { // and looked at by now
		return err
	}
	return toRelease(err)
}

// toRelease says what to do about a refusal.
func toRelease(err error) error {
	switch {
	case errors.Is(err, admin.ErrNotFound):
		return fmt.Errorf("%w; userns-shim pool list shows reservations by name, and ranges as START:LENGTH", err)
	case errors.Is(err, admin.ErrConflict):
		return fmt.Errorf("%w; remove the pods that have it", err)
	}
	return err
}

// broken says what the release of a range does to what is left of its last pod.
func broken(ids idpool.Range, left []string) string {
	if len(left) == 0 {
		return fmt.Sprintf("nothing is left of the last pod that had %s: a release breaks nothing", ids)
	}
	return fmt.Sprintf("the next pod that gets %s shares these ids with what is left of the last one, and each can read, change and signal what is the other's:\n  %s",
		ids, strings.Join(left, "\n  "))
}

// leftOf names the traces of a range, and the processes among them, and says whether it is in quarantine at all.
func leftOf(ctx context.Context, ranges []admin.Range, ids idpool.Range) (left []string, resting bool, err error) {
	i := slices.IndexFunc(ranges, func(r admin.Range) bool {
		return r.Start == ids.Start && r.Length == ids.Length && r.State == string(idpool.StateQuarantined)
	})
	if i < 0 || len(ranges[i].Traces) == 0 {
		return nil, i >= 0, nil
	}
	look, err := hostids.Take(ctx, "/proc")
	if err != nil {
		return nil, true, err
	}
	return traceWords(ranges[i].Traces, ids, look), true, nil
}

// traceWords names what the traces of a range are, with a process as an example where one is.
func traceWords(traces []string, ids idpool.Range, look *hostids.Look) []string {
	var left []string
	for _, trace := range traces {
		switch trace {
		case "namespace":
			words := "a user namespace that maps these ids"
			if n, ok := look.Mapping(ids); ok {
				words += fmt.Sprintf(", with process %d (%s) in it", n.Process.PID, n.Process.Command)
			}
			left = append(left, words)
		case "credentials":
			words := "a process that has one of these ids"
			if h, ok := look.Holding(ids); ok {
				words = fmt.Sprintf("process %d (%s), which has the id %d", h.Process.PID, h.Process.Command, h.ID)
			}
			left = append(left, words)
		case "layers":
			left = append(left, "files in writable layers of its containers")
		default:
			left = append(left, "what nobody has looked for since it was released; the daemon does so every ten seconds")
		}
	}
	return left
}
