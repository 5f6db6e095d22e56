package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/doctor"
)

// doctorFlags are the options of doctor as they are typed.
type doctorFlags struct {
	serve    serveFlags
	output   string
	severity string
	quiet    bool
}

func doctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look over this node for what keeps pods with user namespaces from running well",
		Long: `Look over this node: kernel, filesystems, containerd, OCI runtimes, network, cgroups,
sysctls, limits, kubelet and its host ids, the pool and the database. Each finding that
asks for something says what to type. Nothing is changed and no pod is run; for a trial
with pods there is userns-shim selftest.

It works while userns-shim or containerd is down. Run it as root on the node itself, with
the configuration file that the daemon has.`,
		Example: `  userns-shim doctor
  userns-shim doctor --config /etc/userns-shim/config.yaml --quiet
  userns-shim doctor -o json | jq -r '.findings[] | select(.severity == "error") | .remedy'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.Flags(), cmd.OutOrStdout())
		},
	}
	f.serve.register(cmd.Flags())
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "`format` of the report: text, json or yaml")
	cmd.Flags().StringVar(&f.severity, "severity", string(doctor.Warning), "`level` from which on findings make the exit code 1: error, warning, unknown or info")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "leave out what is well")
	completeFlags(cmd, map[string]cobra.CompletionFunc{
		"output": fixed("text", "json", "yaml"), "severity": fixed("error", "warning", "unknown", "info"),
	})
	return withExitCodes(cmd, `0  there is no finding of --severity or worse
1  there is one
2  the command line is wrong`)
}

func (f *doctorFlags) run(ctx context.Context, flags *pflag.FlagSet, out io.Writer) error {
	limit := doctor.Severity(f.severity)
	if limit == doctor.OK || !slices.Contains(doctor.Severities(), limit) {
		return usageError{fmt.Errorf("severity %q: want error, warning, unknown or info", f.severity)}
	}
	if !slices.Contains([]string{"text", "json", "yaml"}, f.output) {
		return usageError{fmt.Errorf("output format %q: want text, json or yaml", f.output)}
	}
	// What libraries log is no part of the report.
	klog.SetOutput(io.Discard)
	klog.LogToStderr(false)
	var report doctor.Report
	cfg, err := f.serve.load(flags)
	if err != nil {
		report.Findings = append(report.Findings, doctor.Finding{
			Check: "config", Severity: doctor.Error, Message: strings.Join(strings.Fields(err.Error()), " ") + "; the rest goes by the defaults",
			Remedy: "mend it, and compare: userns-shim config default",
		})
		cfg = config.Default()
	}
	examined, err := examineNode(ctx, cfg)
	if err != nil {
		return err
	}
	report.Findings = append(report.Findings, examined...)
	report.Sort()
	worst := report.Worst()
	if f.quiet {
		report.Findings = slices.DeleteFunc(report.Findings, func(x doctor.Finding) bool { return x.Severity == doctor.OK })
	}
	if err := f.print(out, report); err != nil {
		return err
	}
	if worst.Worse(limit) {
		return codedError{exitFindings, errSilent}
	}
	return nil
}

func (f *doctorFlags) print(out io.Writer, report doctor.Report) error {
	switch f.output {
	case "json":
		return printJSON(out, report)
	case "yaml":
		text, err := yaml.Marshal(report)
		if err != nil {
			return err
		}
		_, err = out.Write(text)
		return err
	}
	return report.WriteText(out)
}
