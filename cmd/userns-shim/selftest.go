package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/selftest"
	"github.com/userns-shim/userns-shim/internal/selftest/inside"
)

// subuidFile is where kubelet's ids are on a node that keeps them in files.
const subuidFile = "/etc/subuid"

// selftestFlags are the options of selftest as they are typed.
type selftestFlags struct {
	opts   selftest.Options
	ids    string
	output string
}

func selftestCommand() *cobra.Command {
	var f selftestFlags
	cmd := &cobra.Command{
		Use:   "selftest",
		Short: "Check on this node that pods get user namespaces of their own, with any CRI runtime",
		Long: `Run two pods with hostUsers: false through a CRI socket and check that each has
host ids of its own: what the pods see, what the runtime reports and what the host
sees have to agree. Everything that it makes is removed again, also after a failure
or an interrupt.

It needs no internet: by default it serves a small image, which holds this program
alone, from a registry on 127.0.0.1. Runtimes that take no plain HTTP from there
(CRI-O, by default) and runtimes in another network namespace need --image.

Where the runtime leaves the choice of ids to kubelet, as containerd and CRI-O do,
it sends mappings like kubelet's: drawn at random from kubelet's ids (the line
"kubelet:" in /etc/subuid, else ` + selftest.DefaultIDs.String() + `), none that is in use.

It has to run as root on the node itself: what it cannot see from elsewhere it skips.`,
		Example: `  # userns-shim on this node:
  userns-shim selftest

  # containerd's own CRI plugin, and CRI-O with an image that it can pull:
  userns-shim selftest --endpoint unix:///run/containerd/containerd.sock
  userns-shim selftest --endpoint unix:///run/crio/crio.sock --image registry.example/busybox:1

  # The checks that failed, for a script:
  userns-shim selftest -o json | jq '.checks[] | select(.ok or .skipped | not)'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f.register(cmd.Flags())
	completeFlags(cmd, map[string]cobra.CompletionFunc{"output": fixed("text", "json")})
	return withExitCodes(cmd, `0  no check failed
1  a check failed
2  the command line is wrong`)
}

func (f *selftestFlags) register(flags *pflag.FlagSet) {
	o := &f.opts
	flags.StringVar(&o.Endpoint, "endpoint", config.Default().Listen, "`address` of the CRI socket")
	flags.StringVar(&o.ImageEndpoint, "image-endpoint", "", "`address` of the image service (default: that of --endpoint)")
	flags.StringVar(&o.RuntimeHandler, "runtime-handler", "", "`name` of the runtime handler to test (default: the runtime's)")
	flags.StringVar(&o.Image, "image", "", "`reference` of an image with a busybox to use; it is pulled if the node has it not")
	flags.StringVar(&o.CgroupParent, "cgroup-parent", "", "existing parent `cgroup` of the pods (default: the runtime's)")
	flags.StringVar(&f.ids, "ids", "", "`START:LENGTH` of the host ids to draw from where the runtime chooses none (default: kubelet's)")
	flags.DurationVar(&o.Timeout, "timeout", 2*time.Minute, "`time` after which the test gives up")
	flags.StringVarP(&f.output, "output", "o", "text", "`format` of the report: text or json")
}

func (f *selftestFlags) run(ctx context.Context, out io.Writer) error {
	if f.output != "text" && f.output != "json" {
		return usageError{fmt.Errorf("output %q: want text or json", f.output)}
	}
	ids, err := f.extent()
	if err != nil {
		return usageError{err}
	}
	opts := f.opts
	opts.IDs, opts.Host, opts.Program = ids, selftest.ProcHost{}, "/proc/self/exe"
	report, err := selftest.Run(ctx, opts)
	if err != nil {
		return usageError{err}
	}
	write := report.WriteText
	if f.output == "json" {
		write = report.WriteJSON
	}
	if err := write(out); err != nil {
		return err
	}
	if _, _, failed := report.Count(); failed > 0 {
		return fmt.Errorf("selftest: %d of %d checks failed", failed, len(report.Checks))
	}
	return nil
}

func (f *selftestFlags) extent() (selftest.Extent, error) {
	if f.ids != "" {
		return selftest.ParseExtent(f.ids)
	}
	return selftest.KubeletIDs(subuidFile)
}

// selftestInsideCommand is what the containers of the self-test run.
func selftestInsideCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:    inside.Command,
		Short:  "What the containers of selftest run",
		Hidden: true,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   inside.CommandWait + " TOKEN",
			Short: "Wait for SIGTERM",
			Args:  exactArgs(1),
			Run:   func(cmd *cobra.Command, _ []string) { <-cmd.Context().Done() },
		},
		&cobra.Command{
			Use:   inside.CommandLook + " FILE WITNESS PID",
			Short: "Look around and tell as JSON",
			Args:  exactArgs(3),
			RunE: func(cmd *cobra.Command, args []string) error {
				pid, err := strconv.Atoi(args[2])
				if err != nil {
					return usageError{err}
				}
				facts, err := inside.Look(inside.Request{File: args[0], Witness: args[1], PID: pid})
				if err != nil {
					return err
				}
				return json.NewEncoder(cmd.OutOrStdout()).Encode(facts)
			},
		},
	)
	return cmd
}
