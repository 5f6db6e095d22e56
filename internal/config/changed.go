package config

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// MarshalChanged writes a file with apiVersion, kind and what differs from the defaults; over each key stands
// what comment says of its path. A runtime handler has what differs from a handler's defaults.
func (c Config) MarshalChanged(comment func(field string) string) ([]byte, error) {
	def := Default()
	def.APIVersion, def.Kind = "", ""
	own, err := nodeOf(c)
	if err != nil {
		return nil, err
	}
	theirs, err := nodeOf(def)
	if err != nil {
		return nil, err
	}
	handler, err := nodeOf(defaultHandler())
	if err != nil {
		return nil, err
	}
	changes{handler: handler, comment: comment}.keep(own, theirs, "")
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(own); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return buf.Bytes(), enc.Close()
}

func nodeOf(v any) (*yaml.Node, error) {
	var node yaml.Node
	if err := node.Encode(v); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return &node, nil
}

type changes struct {
	handler *yaml.Node // a handler's defaults
	comment func(field string) string
}

// keep leaves in own what differs from def, and comments it.
func (c changes) keep(own, def *yaml.Node, path string) {
	var kept []*yaml.Node
	for i := 0; i+1 < len(own.Content); i += 2 {
		key, value := own.Content[i], own.Content[i+1]
		at := join(path, key.Value)
		theirs := valueOf(def, key.Value)
		switch {
		case path == "runtimeHandlers":
			c.keep(value, c.handler, at) // a file's handlers replace the default's, so each is named
		case equal(value, theirs):
			continue
		case value.Kind == yaml.MappingNode:
			c.keep(value, theirs, at)
		}
		key.HeadComment = c.comment(at)
		kept = append(kept, key, value)
	}
	own.Content = kept
	if len(kept) == 0 {
		own.Style = yaml.FlowStyle // {}
	}
}

// valueOf is the value of a key of a mapping, nil when it has none.
func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	if mapping == nil {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

func equal(a, b *yaml.Node) bool {
	if b == nil || a.Kind != b.Kind || a.Value != b.Value || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !equal(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}
