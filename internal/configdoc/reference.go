// Package configdoc writes the reference of the configuration file (docs/configuration.md) and the commented
// default file (internal/config/default.yaml) out of the configuration's types and their comments. It is a
// developer's tool: no program that runs on a node imports it.
package configdoc

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/userns-shim/userns-shim/internal/config"
)

// Field is one key of the file.
type Field struct {
	// Path is the key with those that it is below, a runtime handler as NAME and a list's item as [].
	Path string
	// Key is the last part of the path.
	Key string
	// Doc says what the key means.
	Doc string
	// Type is what its value is, in words; empty for a mapping that has Fields.
	Type string
	// Unit is what a number counts.
	Unit string
	// Values are all values of a key that has few, in the order of the source.
	Values []string
	// Default and Example are YAML in flow style.
	Default, Example string
	// Fields are the keys below this one.
	Fields []Field
}

// Reference is the whole file.
type Reference struct {
	Fields []Field
	// Extent is an item of the lists of host ids.
	Extent []Field
}

// handlerName stands for the name of any runtime handler.
const handlerName = "NAME"

// Load reads the comments in dir, which has the sources of package config. It is an error that a
// key has no comment, no example or, where it is a number, no unit.
func Load(dir string) (*Reference, error) {
	src, err := parseSource(dir)
	if err != nil {
		return nil, err
	}
	b := builder{src: src}
	def := config.Default()
	ref := &Reference{
		Fields: b.fields(reflect.ValueOf(def), ""),
		Extent: b.fields(reflect.ValueOf(config.Extent{}), "[]"),
	}
	return ref, errors.Join(b.errs...)
}

type builder struct {
	src  *source
	errs []error
}

func (b *builder) complain(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf(format, args...))
}

// fields describes the fields of a struct that has the defaults as values.
func (b *builder) fields(v reflect.Value, path string) []Field {
	var out []Field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		field := b.field(v.Field(i), strings.TrimPrefix(path+"."+key, "."))
		field.Key = key
		c := b.src.comment(v.Type().Name(), f.Name, key)
		if field.Doc == "" {
			field.Doc = c.doc
		}
		field.Unit, field.Example = c.unit, c.example
		b.demand(field, f.Type)
		out = append(out, field)
	}
	return out
}

// field describes what follows from a field's type and value.
func (b *builder) field(v reflect.Value, path string) Field {
	t := v.Type()
	out := Field{Path: path, Type: typeInWords(t), Values: b.src.values[t.Name()]}
	switch {
	case t.Kind() == reflect.Map:
		handler := v.MapIndex(reflect.ValueOf(config.Default().DefaultRuntimeHandler))
		out.Fields = b.fields(handler, path+"."+handlerName)
	case t.Kind() == reflect.Struct && t != reflect.TypeFor[config.KubeletExtents]():
		out.Doc = b.src.typeDoc(t.Name(), path)
		out.Fields = b.fields(v, path)
	}
	if t.Kind() != reflect.Struct || out.Fields == nil {
		out.Default = b.flow(v.Interface(), path)
	}
	return out
}

func (b *builder) demand(f Field, t reflect.Type) {
	if f.Doc == "" {
		b.complain("%s has no comment", f.Path)
	}
	if f.Example == "" && (f.Fields == nil || t.Kind() == reflect.Map) {
		b.complain("%s has no example", f.Path)
	}
	numeric := t.Kind() == reflect.Int || t.Kind() == reflect.Uint32 || t.Kind() == reflect.Uint64
	if numeric && f.Unit == "" {
		b.complain("%s has no unit", f.Path)
	}
}

// flow is a value as YAML on one line.
func (b *builder) flow(value any, path string) string {
	var node yaml.Node
	if err := node.Encode(value); err != nil {
		b.complain("%s: %w", path, err)
	}
	inFlow(&node)
	data, err := yaml.Marshal(&node)
	if err != nil {
		b.complain("%s: %w", path, err)
	}
	return strings.TrimSpace(string(data))
}

func inFlow(node *yaml.Node) {
	node.Style |= yaml.FlowStyle
	for _, child := range node.Content {
		inFlow(child)
	}
}

func typeInWords(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[config.Duration]():
		return "duration"
	case t == reflect.TypeFor[config.KubeletExtents]():
		return "auto, or list of extents"
	case t == reflect.TypeFor[[]config.Extent]():
		return "list of extents"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Slice:
		return "list of " + typeInWords(t.Elem()) + "s"
	case reflect.Map:
		return "mapping of names to runtime handlers"
	case reflect.Struct:
		return ""
	}
	return "string"
}
