package configdoc

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
)

// source is what the sources of package config say beside the types themselves.
type source struct {
	types  map[string]string   // comments of types
	fields map[string]string   // comments of fields, by Type.Field
	values map[string][]string // constants of a string type
}

func parseSource(dir string) (*source, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	s := &source{types: map[string]string{}, fields: map[string]string{}, values: map[string][]string{}}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("comments of the configuration's types: %w", err)
		}
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.GenDecl); ok {
				s.read(d)
			}
		}
	}
	if len(s.types) == 0 {
		return nil, fmt.Errorf("comments of the configuration's types: %s has none", dir)
	}
	return s, nil
}

func (s *source) read(d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			s.types[spec.Name.Name] = d.Doc.Text()
			if st, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range st.Fields.List {
					for _, name := range f.Names {
						s.fields[spec.Name.Name+"."+name.Name] = f.Doc.Text()
					}
				}
			}
		case *ast.ValueSpec:
			t, named := spec.Type.(*ast.Ident)
			for _, value := range spec.Values {
				if lit, ok := value.(*ast.BasicLit); ok && named && lit.Kind == token.STRING {
					text, _ := strconv.Unquote(lit.Value) // the compiler has read it too
					s.values[t.Name] = append(s.values[t.Name], text)
				}
			}
		}
	}
}

// comment is the comment of a field, taken apart.
type comment struct{ doc, unit, example string }

// comment reads the lines "Unit: x." and "Example: x" of a field's comment, and lets the rest name
// the key instead of the Go field that it begins with.
func (s *source) comment(typ, field, key string) comment {
	var c comment
	var prose []string
	for line := range strings.Lines(s.fields[typ+"."+field]) {
		line = strings.TrimRight(line, "\n")
		if unit, ok := strings.CutPrefix(line, "Unit: "); ok {
			c.unit = strings.TrimSuffix(unit, ".")
		} else if example, ok := strings.CutPrefix(line, "Example: "); ok {
			c.example = example
		} else {
			prose = append(prose, line)
		}
	}
	c.doc = named(strings.TrimSpace(strings.Join(prose, "\n")), field, key)
	return c
}

// typeDoc is the comment of a mapping's type, about the key that has it.
func (s *source) typeDoc(typ, key string) string {
	return named(strings.TrimSpace(s.types[typ]), typ, key)
}

// named replaces the name that a comment begins with.
func named(doc, name, key string) string {
	if rest, ok := strings.CutPrefix(doc, name+" "); ok {
		return key + " " + rest
	}
	return doc
}
