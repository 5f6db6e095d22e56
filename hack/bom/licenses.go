package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
)

// licenseFile matches the names of files that have to go with a binary.
var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([-._].*)?$`)

// writeLicenses writes the license files of every module, as they stand in its root.
func writeLicenses(w io.Writer, programs []program) error {
	modules := union(programs)
	dirs, err := directories(modules)
	if err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("ask for Go's directory: %w", err)
	}
	if err := writeFiles(w, "Go "+programs[0].info.GoVersion, string(bytes.TrimSpace(root))); err != nil {
		return err
	}
	for _, m := range modules {
		if err := writeFiles(w, m.Path+" "+m.Version, dirs[m.Path]); err != nil {
			return err
		}
	}
	return nil
}

func writeFiles(w io.Writer, title, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for the license of %s: %w", title, err)
	}
	found := false
	for _, e := range entries {
		if e.IsDir() || !licenseFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		found = true
		if _, err := fmt.Fprintf(w, "==== %s: %s\n\n%s\n\n", title, e.Name(), bytes.TrimSpace(text)); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("%s has no license file", title)
	}
	return nil
}

// directories asks the go command where the modules are, by path.
func directories(modules []debug.Module) (map[string]string, error) {
	args := []string{"mod", "download", "-json"}
	for _, m := range modules {
		args = append(args, m.Path+"@"+m.Version)
	}
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("ask for the modules' directories: %w", err)
	}
	dirs := map[string]string{}
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var m struct{ Path, Dir string }
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return dirs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the modules' directories: %w", err)
		}
		dirs[m.Path] = m.Dir
	}
}
