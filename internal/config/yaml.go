package config

import (
	"bytes"
	_ "embed" // the default file
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
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

// Parse reads one YAML document over the defaults and validates the result. The error joins all that is
// wrong, each with its line and field.
func Parse(data []byte) (Config, error) {
	cfg, problems := Check(data)
	if err := asError(problems); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// Check is Parse with everything that can be said about a file, warnings included, in the order of its lines.
// The configuration is what the file says where it can be read, and the defaults elsewhere.
func Check(data []byte) (Config, []Problem) {
	cfg := Default()
	root, err := document(data)
	if err != nil {
		return cfg, []Problem{syntaxProblem(err)}
	}
	s := strict{at: places{}}
	if root != nil && s.check(root, reflect.TypeFor[Config](), "") {
		// A handler's defaults are filled in per handler, so that a file which names
		// handlers replaces the default's list instead of adding to it.
		cfg.RuntimeHandlers = nil
		if err := root.Decode(&cfg); err != nil {
			s.problems = append(s.problems, syntaxProblem(err))
		}
		if cfg.RuntimeHandlers == nil {
			cfg.RuntimeHandlers = Default().RuntimeHandlers
		}
	}
	problems := add(s.problems, s.at.problems(cfg.Validate(), false))
	problems = add(problems, s.at.problems(cfg.Warnings(), true))
	if _, ok := s.at["apiVersion"]; !ok {
		problems = append(problems, Problem{Field: "apiVersion", Message: "is missing: taken for " + APIVersion, Warning: true})
	}
	return cfg, inOrder(problems)
}

// document is the only document of data, nil when there is none.
func document(data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	return doc.Content[0], nil
}

// syntaxProblem is an error of the YAML library, which has the line in its text.
func syntaxProblem(err error) Problem {
	p := Problem{Message: err.Error()}
	if _, text, ok := strings.Cut(p.Message, "yaml: line "); ok {
		if number, rest, ok := strings.Cut(text, ": "); ok {
			if line, err := strconv.Atoi(number); err == nil {
				p.Line, p.Message = line, rest
			}
		}
	}
	return p
}

//go:embed default.yaml
var defaultFile []byte

// DefaultFile is a file that says what Default is, each key with a comment. hack/configdoc writes it from the
// comments of the types.
func DefaultFile() []byte { return bytes.Clone(defaultFile) }

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

// UnmarshalYAML fills in the defaults of a handler.
func (h *RuntimeHandler) UnmarshalYAML(node *yaml.Node) error {
	type plain RuntimeHandler
	p := plain(defaultHandler())
	if err := node.Decode(&p); err != nil {
		return err
	}
	*h = RuntimeHandler(p)
	return nil
}

// autoExtents is what kubeletExtents is when kubelet is asked.
const autoExtents = "auto"

// UnmarshalYAML takes "auto" or a list of extents.
func (k *KubeletExtents) UnmarshalYAML(node *yaml.Node) error {
	k.Auto, k.Extents = node.Kind == yaml.ScalarNode && node.Value == autoExtents, nil
	if k.Auto {
		return nil
	}
	return node.Decode(&k.Extents)
}

// MarshalYAML is the inverse of UnmarshalYAML.
func (k KubeletExtents) MarshalYAML() (any, error) {
	if k.Auto {
		return autoExtents, nil
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
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// String leaves out the zeros at the end of Go's spelling: 5m, not 5m0s.
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
