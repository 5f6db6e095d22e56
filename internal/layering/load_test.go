package layering

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// listed is what `go list -json` says of a package, as far as it is used here.
type listed struct {
	ImportPath string
	Dir        string
	Imports    []string
	Module     *struct {
		Path string
		Main bool
	}
}

// load reads the graph of this module: the imports of all packages from the go command,
// and its own files one by one, those that this platform does not build included.
func load(t *testing.T) graph {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Dir,Imports,Module", "./...")
	cmd.Dir = filepath.Join("..", "..")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps: %v\n%s", err, stderr.Bytes())
	}

	g := graph{imports: make(map[string][]string)}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return g
		} else if err != nil {
			t.Fatalf("decode the output of go list: %v", err)
		}
		g.imports[l.ImportPath] = l.Imports
		if l.Module == nil || !l.Module.Main {
			continue
		}
		g.module = l.Module.Path
		files, err := parseDir(l.Dir)
		if err != nil {
			t.Fatal(err)
		}
		g.packages = append(g.packages, pkg{path: strings.TrimPrefix(l.ImportPath, g.module+"/"), files: files})
	}
}

func parseDir(dir string) ([]file, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, fmt.Errorf("list Go files of %s: %w", dir, err)
	}
	var files []file
	for _, name := range names {
		f, err := parseFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func parseFile(name string) (file, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return file{}, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return file{}, fmt.Errorf("parse imports: %w", err)
	}
	f := file{name: filepath.Base(name), clause: parsed.Name.Name, doc: parsed.Doc.Text()}
	for _, spec := range parsed.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return file{}, fmt.Errorf("parse import %s of %s: %w", spec.Path.Value, name, err)
		}
		f.imports = append(f.imports, imp)
	}
	return f, nil
}
