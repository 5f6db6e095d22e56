package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/fromcontainerd"
)

// migrateFlags are the options of config migrate.
type migrateFlags struct {
	from   string
	root   string
	output string
}

func configMigrateCommand() *cobra.Command {
	var f migrateFlags
	cmd := &cobra.Command{
		Use:   "migrate [FILE]",
		Short: "Print the configuration that another file means",
		Long: `Read the configuration of containerd's CRI plugin, or one of userns-shim's own, and
print the configuration file of this version that means the same. It has only what
differs from the defaults, each key with the setting that it comes from. What
cannot be carried over is printed to standard error, with the reason.

containerd's file (versions 2 to 4) is read with all that it imports. Values that
are containerd's defaults are not mentioned. userns-shim's own is one with the
kind Config, or without any.`,
		Example: `  userns-shim config migrate /etc/containerd/config.toml > config.yaml
  userns-shim config migrate -o json /etc/containerd/config.toml | jq .notes`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "/etc/containerd/config.toml"
			if len(args) == 1 {
				name = args[0]
			}
			return f.run(name, cmd)
		},
	}
	cmd.Flags().StringVar(&f.from, "from", "auto", "`format` of FILE: auto, containerd or userns-shim")
	cmd.Flags().StringVar(&f.root, "root", "/", "`directory` that absolute imports are below")
	cmd.Flags().StringVarP(&f.output, "output", "o", "yaml", "`format`: yaml, or json with the file and the notes in one")
	completeFlags(cmd, map[string]cobra.CompletionFunc{
		"output": fixed("yaml", "json"), "from": fixed("auto", "containerd", "userns-shim"),
	})
	return withExitCodes(cmd, `0  printed
1  the file has errors
2  the command line is wrong, or the file cannot be read`)
}

func (f *migrateFlags) run(name string, cmd *cobra.Command) error {
	if f.output != "yaml" && f.output != "json" {
		return usageError{fmt.Errorf("output %q: want yaml or json", f.output)}
	}
	data, err := readFileOr(cmd.InOrStdin(), name)
	if err != nil {
		return usageError{err}
	}
	var tr *fromcontainerd.Translation
	switch f.from {
	case "containerd":
		tr, err = f.containerds(name, data)
	case "userns-shim":
		tr, err = own(data)
	case "auto":
		if _, notTOML := fromcontainerd.Parse(name, data); notTOML == nil && len(bytes.TrimSpace(data)) > 0 {
			tr, err = f.containerds(name, data)
		} else {
			tr, err = own(data)
		}
	default:
		return usageError{fmt.Errorf("from %q: want auto, containerd or userns-shim", f.from)}
	}
	if err != nil {
		return fmt.Errorf("config migrate: %s: %w", name, err)
	}
	return f.write(cmd.OutOrStdout(), cmd.ErrOrStderr(), tr)
}

func (f *migrateFlags) containerds(name string, data []byte) (*fromcontainerd.Translation, error) {
	tree, err := fromcontainerd.Parse(name, data)
	if err == nil && name != "-" {
		tree, err = fromcontainerd.Load(name, f.root)
	}
	if err != nil {
		return nil, err
	}
	tr, err := fromcontainerd.Translate(tree)
	if err != nil {
		return nil, err
	}
	return tr, tr.Config.Validate()
}

func own(data []byte) (*fromcontainerd.Translation, error) {
	cfg, err := config.Parse(data)
	return &fromcontainerd.Translation{Config: cfg}, err
}

// write prints the file to out, and in YAML the notes to notes.
func (f *migrateFlags) write(out, notes io.Writer, tr *fromcontainerd.Translation) error {
	sources := map[string][]string{}
	for _, c := range tr.Carried {
		sources[c.To] = append(sources[c.To], c.From)
	}
	data, err := tr.Config.MarshalChanged(func(field string) string { return strings.Join(sources[field], ", ") })
	if err != nil {
		return err
	}
	if f.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Config string `json:"config"`
			*fromcontainerd.Translation
		}{string(data), tr})
	}
	errs := []error{nil}
	for _, n := range tr.Notes {
		_, err := fmt.Fprintf(notes, "not carried over: %s: %s\n", strings.TrimSuffix(n.From+" = "+n.Value, " = "), n.Why)
		errs = append(errs, err)
	}
	_, err = out.Write(data)
	return errors.Join(append(errs, err)...)
}
