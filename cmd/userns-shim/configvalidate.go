package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/config"
)

// validateFlags are the options of config validate.
type validateFlags struct {
	output string
	strict bool
}

func configValidateCommand() *cobra.Command {
	var f validateFlags
	cmd := &cobra.Command{
		Use:   "validate [FILE]",
		Short: "Tell all that is wrong with a configuration file",
		Long: `Check a configuration file as serve reads it, and print every error and warning
with its line. Without FILE, or with -, it reads standard input. It looks at the
file alone: whether this node has what the file names is for doctor and the log.`,
		Example: `  userns-shim config validate /etc/userns-shim/config.yaml
  userns-shim config validate -o json new.yaml | jq -r '.problems[].field'`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "-"
			if len(args) == 1 {
				name = args[0]
			}
			return f.run(name, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "`format`: text or json")
	cmd.Flags().BoolVar(&f.strict, "strict", false, "let warnings count as errors")
	completeFlags(cmd, map[string]cobra.CompletionFunc{"output": fixed("text", "json")})
	return withExitCodes(cmd, `0  the file is valid
1  it has errors, or with --strict warnings
2  the command line is wrong, or the file cannot be read`)
}

// verdict is what config validate says of a file.
type verdict struct {
	File     string           `json:"file"`
	Valid    bool             `json:"valid"`
	Errors   int              `json:"errors"`
	Warnings int              `json:"warnings"`
	Problems []config.Problem `json:"problems"`
}

func (f *validateFlags) run(name string, stdin io.Reader, out io.Writer) error {
	if f.output != "text" && f.output != "json" {
		return usageError{fmt.Errorf("output %q: want text or json", f.output)}
	}
	data, err := readFileOr(stdin, name)
	if err != nil {
		return usageError{err}
	}
	_, problems := config.Check(data)
	v := verdict{File: name, Problems: append([]config.Problem{}, problems...)}
	for _, p := range problems {
		if p.Warning {
			v.Warnings++
		} else {
			v.Errors++
		}
	}
	v.Valid = v.Errors == 0 && (!f.strict || v.Warnings == 0)
	if err := v.write(out, f.output); err != nil {
		return err
	}
	if !v.Valid {
		return fmt.Errorf("config validate: %s has %d errors and %d warnings", name, v.Errors, v.Warnings)
	}
	return nil
}

func (v verdict) write(out io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	for _, p := range v.Problems {
		kind := "error"
		if p.Warning {
			kind = "warning"
		}
		if _, err := fmt.Fprintf(out, "%s: %s: %v\n", v.File, kind, p); err != nil {
			return err
		}
	}
	if v.Valid {
		_, err := fmt.Fprintf(out, "%s: valid\n", v.File)
		return err
	}
	return nil
}

// readFileOr reads a file, or stdin for the name -.
func readFileOr(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}
