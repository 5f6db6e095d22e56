package installer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"go.yaml.in/yaml/v3"
)

// defaultEndpoint is the runtime of a kubelet that is told none.
const defaultEndpoint = "unix:///run/containerd/containerd.sock"

// endpoint is one place that tells kubelet its runtime.
type endpoint struct {
	Path string `json:"path"`
	// Flag is set for a command line; otherwise the place is a configuration file.
	Flag bool `json:"flag,omitempty"`
	// Old is what it says, empty for a configuration file without it.
	Old string `json:"old,omitempty"`
}

// Places of kubelet's command line. Those of the vendor are not edited, for a package owns them.
var (
	flagFiles   = []string{"/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet", "/etc/sysconfig/kubelet", "/etc/systemd/system/kubelet.service"}
	flagDropIns = "/etc/systemd/system/kubelet.service.d"
	vendorDirs  = []string{"/usr/lib/systemd/system", "/lib/systemd/system"}
	// instanceConfig is where kubeadm keeps what is special to the node, for its next upgrade.
	instanceConfig = "/var/lib/kubelet/instance-config.yaml"
)

// ErrNoKubelet says that nothing was found that tells kubelet its runtime.
var ErrNoKubelet = errors.New("kubelet's configuration is not found: name it")

// planEndpoint finds all places that tell kubelet its runtime.
func (h host) planEndpoint(configFile string) ([]endpoint, error) {
	out, err := h.flagPlaces()
	if err != nil {
		return nil, err
	}
	text, err := h.read(configFile)
	if err != nil {
		return nil, fmt.Errorf("read kubelet's configuration: %w", err)
	}
	if text == nil && len(out) == 0 {
		return nil, fmt.Errorf("%s: %w", configFile, ErrNoKubelet)
	}
	for _, file := range []string{configFile, instanceConfig} {
		text, err := h.read(file)
		if err != nil {
			return nil, err
		}
		if text == nil {
			continue
		}
		old, err := configEndpoint(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if old != "" || file == configFile {
			out = append(out, endpoint{Path: file, Old: old})
		}
	}
	return out, nil
}

func (h host) flagPlaces() ([]endpoint, error) {
	dropIns, err := h.glob(flagDropIns, "*.conf")
	if err != nil {
		return nil, err
	}
	var out []endpoint
	for _, file := range append(append([]string{}, flagFiles...), dropIns...) {
		text, err := h.read(file)
		if err != nil {
			return nil, err
		}
		if m := endpointFlag.FindSubmatch(text); m != nil {
			out = append(out, endpoint{Path: file, Flag: true, Old: string(m[2])})
		}
	}
	for _, dir := range vendorDirs {
		files, err := h.glob(dir, "kubelet.service")
		if err != nil {
			return nil, err
		}
		below, err := h.glob(filepath.Join(dir, "kubelet.service.d"), "*.conf")
		if err != nil {
			return nil, err
		}
		for _, file := range append(files, below...) {
			if text, err := h.read(file); err != nil || endpointFlag.Match(text) {
				return nil, errors.Join(err, fmt.Errorf("%s has --container-runtime-endpoint and belongs to a package: override it below %s", file, flagDropIns))
			}
		}
	}
	return out, nil
}

// glob lists the files of a directory of the node by a pattern.
func (h host) glob(dir, pattern string) ([]string, error) {
	full, err := h.path(dir)
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(full, pattern))
	for i := range found {
		found[i] = filepath.Join(dir, filepath.Base(found[i]))
	}
	return found, err
}

// endpointFlag is the flag with its value, of which the second group is without quotes.
var endpointFlag = regexp.MustCompile(`(--container-runtime-endpoint(?:=|\s+)["']?)([^"'\s\\]+)`)

// setEndpoint changes one place; an empty value takes the key out of a configuration file.
func (h host) setEndpoint(e endpoint, value string) error {
	text, err := h.read(e.Path)
	if err != nil {
		return err
	}
	full, err := h.path(e.Path)
	if err != nil {
		return err
	}
	info, err := os.Stat(full)
	if err != nil {
		return fmt.Errorf("point kubelet at its runtime: %w", err)
	}
	if e.Flag {
		text = endpointFlag.ReplaceAll(text, []byte("${1}"+value))
	} else if text, err = setConfigEndpoint(text, value); err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	return h.write(e.Path, text, info.Mode().Perm())
}

const endpointKey = "containerRuntimeEndpoint"

// configEndpoint reads the key of a configuration file, YAML or JSON.
func configEndpoint(text []byte) (string, error) {
	var parsed struct {
		Endpoint string `yaml:"containerRuntimeEndpoint"`
	}
	if err := yaml.Unmarshal(text, &parsed); err != nil {
		return "", err
	}
	return parsed.Endpoint, nil
}

// setConfigEndpoint changes the key and leaves the rest of the file as it is, comments included.
func setConfigEndpoint(text []byte, value string) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if doc.Kind == 0 {
		doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, errors.New("is no mapping")
	}
	setKey(root, value)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func setKey(root *yaml.Node, value string) {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != endpointKey {
			continue
		}
		if value == "" {
			root.Content = append(root.Content[:i], root.Content[i+2:]...)
			return
		}
		root.Content[i+1].Value = value
		return
	}
	if value == "" {
		return
	}
	style := yaml.Style(0)
	if root.Style&yaml.FlowStyle != 0 {
		style = yaml.DoubleQuotedStyle // JSON
	}
	root.Content = append(root.Content,
		&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: endpointKey, Style: style}, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Style: style})
}
