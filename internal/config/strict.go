package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// strict holds the nodes of a file against the types that they are decoded into. It collects what is
// wrong and takes it out of the tree, so that the rest can be decoded and validated too.
type strict struct {
	at       places
	problems []Problem
}

func (s *strict) report(node *yaml.Node, field, format string, args ...any) {
	s.problems = append(s.problems, Problem{Line: node.Line, Column: node.Column, Field: field, Message: fmt.Sprintf(format, args...)})
}

// check tells whether node can be decoded into a t.
func (s *strict) check(node *yaml.Node, t reflect.Type, field string) bool {
	if field != "" {
		s.at[field] = place{node.Line, node.Column}
	}
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch {
	case node.Tag == "!!null":
		return true
	case t == reflect.TypeFor[KubeletExtents]():
		return s.checkKubeletExtents(node, field)
	case t.Kind() == reflect.Struct:
		fields := fieldsOf(t)
		return s.checkMapping(node, field, func(key string) (reflect.Type, bool) {
			t, ok := fields[key]
			return t, ok
		})
	case t.Kind() == reflect.Map:
		return s.checkMapping(node, field, func(string) (reflect.Type, bool) { return t.Elem(), true })
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return s.checkList(node, t.Elem(), field)
	}
	if err := node.Decode(reflect.New(t).Interface()); err != nil {
		s.report(node, field, "is %s: want %s", shown(node), wanted(t))
		return false
	}
	return true
}

// checkMapping takes the keys out that are unknown, repeated or have a value of the wrong type.
func (s *strict) checkMapping(node *yaml.Node, field string, typeOf func(key string) (reflect.Type, bool)) bool {
	if node.Kind != yaml.MappingNode {
		s.report(node, field, "is %s: want a mapping of names to values", shown(node))
		return false
	}
	var kept []*yaml.Node
	first := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := join(field, key.Value)
		t, known := typeOf(key.Value)
		switch line, seen := first[key.Value]; {
		case key.Tag == "!!merge":
			s.report(key, field, "merges another mapping: write out what it has")
			continue
		case !known:
			s.report(key, path, "is unknown%s", suggestion(field, key.Value))
			continue
		case seen:
			s.report(key, path, "is set in line %d already", line)
			continue
		}
		first[key.Value] = key.Line
		if s.check(value, t, path) {
			kept = append(kept, key, value)
		}
		s.at[path] = place{key.Line, key.Column}
	}
	node.Content = kept
	return true
}

func (s *strict) checkList(node *yaml.Node, elem reflect.Type, field string) bool {
	if node.Kind != yaml.SequenceNode {
		s.report(node, field, "is %s: want a list", shown(node))
		return false
	}
	whole := true
	for i, item := range node.Content {
		whole = s.check(item, elem, fmt.Sprintf("%s[%d]", field, i)) && whole
	}
	return whole
}

func (s *strict) checkKubeletExtents(node *yaml.Node, field string) bool {
	if node.Kind == yaml.ScalarNode && node.Value == autoExtents {
		return true
	}
	if node.Kind != yaml.SequenceNode {
		s.report(node, field, "is %s: want auto or a list of {start, length}", shown(node))
		return false
	}
	return s.checkList(node, reflect.TypeFor[Extent](), field)
}

// fieldsOf are the types of a struct's fields, by their names in the file.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		fields[name] = t.Field(i).Type
	}
	return fields
}

func join(field, key string) string { return strings.TrimPrefix(field+"."+key, ".") }

func shown(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", node.Value)
}

func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return "a duration such as 1h30m or 10s"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return "a list of " + wanted(t.Elem()) + "s"
	case t.Kind() == reflect.Uint32:
		return "a whole number from 0 to 4294967295"
	case t.Kind() == reflect.Uint64:
		return "a whole number from 0 on"
	case t.Kind() == reflect.Int:
		return "a whole number"
	}
	return "a string"
}

// suggestion names the known field that an unknown one was probably meant to be.
func suggestion(field, key string) string {
	beside, elsewhere := knownFields(field)
	for _, known := range append(beside, elsewhere...) {
		if plain(known[strings.LastIndex(known, ".")+1:]) == plain(key) {
			return fmt.Sprintf(": do you mean %s?", known)
		}
	}
	least, best := len(key)/3+1, ""
	for _, known := range beside {
		if d := distance(plain(known[strings.LastIndex(known, ".")+1:]), plain(key)); d <= least {
			least, best = d-1, known
		}
	}
	if best != "" {
		return fmt.Sprintf(": do you mean %s?", best)
	}
	return ""
}

// plain lets names be equal that differ in case and separators only, as max_log_size and maxLogSize.
func plain(key string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(key))
}

// knownFields are the paths of the fields beside a key of the mapping at field, and of all others.
func knownFields(field string) (beside, elsewhere []string) {
	var visit func(t reflect.Type, path string)
	visit = func(t reflect.Type, path string) {
		for name, ft := range fieldsOf(t) {
			at := join(path, name)
			if path == generic(field) {
				beside = append(beside, join(field, name))
			} else {
				elsewhere = append(elsewhere, at)
			}
			switch {
			case ft.Kind() == reflect.Map:
				visit(ft.Elem(), at+".NAME")
			case ft.Kind() == reflect.Struct && ft != reflect.TypeFor[KubeletExtents]():
				visit(ft, at)
			}
		}
	}
	visit(reflect.TypeFor[Config](), "")
	slices.Sort(beside)
	slices.Sort(elsewhere)
	return beside, elsewhere
}

// generic is the path of a field with the name of a runtime handler left out.
func generic(field string) string {
	if strings.HasPrefix(field, "runtimeHandlers.") {
		return "runtimeHandlers.NAME"
	}
	return field
}

// distance is how many letters have to be put in, taken out or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
