package fromcontainerd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Load reads the file at path and those that it imports, as containerd does: imported ones win, and
// patterns without a match are nothing. Files that are imported are looked for below root, which is / or where the
// file system of a node is mounted.
func Load(path, root string) (map[string]any, error) {
	out := map[string]any{}
	loaded := map[string]bool{}
	for pending := []string{path}; len(pending) > 0; pending = pending[1:] {
		name := pending[0]
		if loaded[name] {
			continue
		}
		loaded[name] = true
		tree, err := parse(name)
		if err != nil {
			return nil, err
		}
		imports, err := importsOf(tree, name, root)
		if err != nil {
			return nil, err
		}
		pending = append(pending, imports...)
		if version, ok := tree["version"]; ok && out["version"] != nil && version != out["version"] {
			return nil, fmt.Errorf("%s has version %v, and %s %v: bring them to one with containerd config migrate", name, version, path, out["version"])
		}
		override(out, tree)
	}
	return out, nil
}

func parse(name string) (map[string]any, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read containerd's configuration: %w", err)
	}
	return Parse(name, data)
}

// Parse reads one file, whose name is for errors.
func Parse(name string, data []byte) (map[string]any, error) {
	tree := map[string]any{}
	err := toml.Unmarshal(data, &tree)
	var at *toml.DecodeError
	if errors.As(err, &at) {
		line, _ := at.Position()
		return nil, fmt.Errorf("%s: line %d: %w", name, line, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return tree, nil
}

func importsOf(tree map[string]any, parent, root string) ([]string, error) {
	var out []string
	list, _ := tree["imports"].([]any)
	for _, item := range list {
		pattern, _ := item.(string)
		if filepath.IsAbs(pattern) {
			pattern = filepath.Join(root, pattern)
		} else {
			pattern = filepath.Join(filepath.Dir(parent), pattern)
		}
		if !strings.Contains(pattern, "*") {
			out = append(out, pattern)
			continue
		}
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("%s: import %s: %w", parent, item, err)
		}
		out = append(out, matches...)
	}
	return out, nil
}

// override puts the values of from over those of to.
func override(to, from map[string]any) {
	for key, v := range from {
		below, isMap := v.(map[string]any)
		there, had := to[key].(map[string]any)
		if isMap && had {
			override(there, below)
			continue
		}
		to[key] = v
	}
}
