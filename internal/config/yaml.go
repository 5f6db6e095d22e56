package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Load reads and validates the file at path; an empty path gives Default. Every error names the file.
func Load(path string) (Config, error) {
	if path == "" {
		return Default(), nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	cfg, err := Parse(data)
	if err != nil {
		return Config{}, fmt.Errorf("configuration file %s: %w", path, err)
	}
	return cfg, nil
}

// Parse reads one YAML document over the defaults and validates the result. An unknown or
// repeated field is an error that names its line.
func Parse(data []byte) (Config, error) {
	cfg := Default()
	// A handler's defaults are filled in per handler, below, so that a file which names
	// handlers replaces the default's list instead of adding to it.
	cfg.RuntimeHandlers = nil
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("more than one YAML document")
	}
	if cfg.RuntimeHandlers == nil {
		cfg.RuntimeHandlers = Default().RuntimeHandlers
	}
	if err := cfg.Validate(); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// Marshal writes the configuration as YAML.
func (c Config) Marshal() ([]byte, error) {
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return buf.Bytes(), enc.Close()
}

// UnmarshalYAML fills in the defaults of a handler. Decoding through a second type keeps
// KnownFields, which a custom unmarshaller would otherwise lose.
func (h *RuntimeHandler) UnmarshalYAML(node *yaml.Node) error {
	if err := checkFields(node, handlerFields()...); err != nil {
		return err
	}
	type plain RuntimeHandler
	p := plain(defaultHandler())
	if err := node.Decode(&p); err != nil {
		return err
	}
	*h = RuntimeHandler(p)
	return nil
}

// handlerFields are the names of a handler's fields.
func handlerFields() []string {
	var names []string
	for i, t := 0, reflect.TypeFor[RuntimeHandler](); i < t.NumField(); i++ {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		names = append(names, name)
	}
	return names
}

// checkFields reports the first key of a mapping that is not known, with its line: a node
// that is decoded inside a custom unmarshaller is outside the decoder's own check.
func checkFields(node *yaml.Node, known ...string) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: want a mapping", node.Line)
	}
next:
	for i := 0; i+1 < len(node.Content); i += 2 {
		for _, k := range known {
			if node.Content[i].Value == k {
				continue next
			}
		}
		return fmt.Errorf("line %d: field %s not found", node.Content[i].Line, node.Content[i].Value)
	}
	return nil
}

// UnmarshalYAML takes "auto" or a list of extents.
func (k *KubeletExtents) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		if node.Value != "auto" {
			return fmt.Errorf("line %d: kubeletExtents is %q: want auto or a list of {start, length}", node.Line, node.Value)
		}
		*k = KubeletExtents{Auto: true}
		return nil
	}
	for _, item := range node.Content {
		if err := checkFields(item, "start", "length"); err != nil {
			return err
		}
	}
	k.Auto, k.Extents = false, nil
	return node.Decode(&k.Extents)
}

// MarshalYAML is the inverse of UnmarshalYAML.
func (k KubeletExtents) MarshalYAML() (any, error) {
	if k.Auto {
		return "auto", nil
	}
	return k.Extents, nil
}

// UnmarshalYAML takes Go's spelling of a duration.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	v, err := time.ParseDuration(node.Value)
	if err != nil {
		return fmt.Errorf("line %d: %w", node.Line, err)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML is the inverse of UnmarshalYAML.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }
