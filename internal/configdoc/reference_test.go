package configdoc

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/userns-shim/userns-shim/internal/config"
)

func load(t *testing.T) *Reference {
	t.Helper()
	ref, err := Load(filepath.Join("..", "config"))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// TestFilesAreCurrent: the reference and the default file say what the types' comments say.
func TestFilesAreCurrent(t *testing.T) {
	ref := load(t)
	for name, want := range map[string][]byte{
		filepath.Join("..", "..", "docs", "configuration.md"): ref.Markdown(),
		filepath.Join("..", "config", "default.yaml"):         ref.YAML(),
	} {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not current: run make generate", name)
		}
	}
}

// TestDefaultFileSaysTheDefaults, in full: every key is in it, and reading it gives what an empty file gives.
func TestDefaultFileSaysTheDefaults(t *testing.T) {
	cfg, problems := config.Check(config.DefaultFile())
	if len(problems) > 0 {
		t.Errorf("problems of the default file: %v", problems)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(config.DefaultFile(), &tree); err != nil {
		t.Fatal(err)
	}
	paths(load(t).Fields, func(f Field) {
		at := any(tree)
		for _, key := range strings.Split(strings.Replace(f.Path, handlerName, "runc", 1), ".") {
			below, _ := at.(map[string]any)
			var ok bool
			if at, ok = below[key]; !ok {
				t.Errorf("the default file has no %s", f.Path)
			}
		}
	})
	if got, want := text(t, cfg), text(t, config.Default()); got != want {
		t.Errorf("the default file says\n%s\nand an empty one\n%s", got, want)
	}
}

// text lets an empty list and none be the same, as they are in a file.
func text(t *testing.T, c config.Config) string {
	t.Helper()
	data, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), " []", " null")
}

// TestExamplesAreValid: the example of each key is one, put into an otherwise empty file.
func TestExamplesAreValid(t *testing.T) {
	ref := load(t)
	paths(ref.Fields, func(f Field) {
		if f.Example == "" {
			return
		}
		text := "apiVersion: " + config.APIVersion + "\n"
		switch path := strings.Split(f.Path, "."); {
		case path[0] == "runtimeHandlers" && len(path) == 3:
			text += "runtimeHandlers: {runc: {" + path[2] + ": " + f.Example + "}}"
		case path[0] == "defaultRuntimeHandler":
			text += "runtimeHandlers: {crun: {}}\ndefaultRuntimeHandler: " + f.Example
		case path[0] == "apiVersion":
			text = "apiVersion: " + f.Example
		case len(path) == 2:
			text += path[0] + ": {" + path[1] + ": " + f.Example + "}"
		default:
			text += f.Path + ": " + f.Example
		}
		for _, p := range second(config.Check([]byte(text))) {
			if !p.Warning {
				t.Errorf("the example of %s: %v\n%s", f.Path, p, text)
			}
		}
	})
}

func second(_ config.Config, problems []config.Problem) []config.Problem { return problems }

func paths(fields []Field, visit func(Field)) {
	for _, f := range fields {
		visit(f)
		paths(f.Fields, visit)
	}
}

// TestReferenceHasEveryKey under its own heading, with type, default and example.
func TestReferenceHasEveryKey(t *testing.T) {
	ref := load(t)
	text := string(ref.Markdown())
	paths(ref.Fields, func(f Field) {
		if f.Fields != nil && f.Type == "" {
			return
		}
		_, section, ok := strings.Cut(text, "### `"+f.Path+"`\n")
		section, _, _ = strings.Cut(section, "\n#")
		if !ok || !strings.Contains(section, f.Type) || !strings.Contains(section, f.Example) || !strings.Contains(section, f.Default) && f.Fields == nil {
			t.Errorf("the reference says of %s: %q", f.Path, section)
		}
	})
}

// TestUndocumentedKeysAreAnError, so that a key which is added later is documented.
func TestUndocumentedKeysAreAnError(t *testing.T) {
	for says, cut := range map[string]string{
		"containerd.snapshotter has no comment": "\t// Snapshotter is the default for runtime handlers that name none.\n",
		"containerd.snapshotter has no example": "\t// Example: native\n",
		"maxContainerLogLineSize has no unit":   "\t// Unit: bytes.\n",
	} {
		if _, err := Load(sourcesWithout(t, cut)); err == nil || err.Error() != says {
			t.Errorf("without %q the error is %v, want %s", cut, err, says)
		}
	}
}

// sourcesWithout copies package config and takes a line out of config.go.
func sourcesWithout(t *testing.T, cut string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "config"))); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "config.go")
	whole, err := os.ReadFile(name)
	if err != nil || !strings.Contains(string(whole), cut) {
		t.Fatalf("config.go has no line %q: %v", cut, err)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(whole), cut, "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
