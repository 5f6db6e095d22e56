// Command configdoc writes docs/configuration.md and internal/config/default.yaml, or with -check
// tells whether they are current. It runs at the root of the repository.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"

	"github.com/userns-shim/userns-shim/internal/configdoc"
)

func main() {
	check := flag.Bool("check", false, "write nothing; fail when a file is not current")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintf(os.Stderr, "configdoc: %v\n", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	ref, err := configdoc.Load("internal/config")
	if err != nil {
		return err
	}
	for name, want := range map[string][]byte{"docs/configuration.md": ref.Markdown(), "internal/config/default.yaml": ref.YAML()} {
		if !check {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				return err
			}
			continue
		}
		got, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s is not current: run make generate", name)
		}
	}
	return nil
}
