// Package fromcontainerd says the configuration of containerd's CRI plugin in userns-shim's terms, and names
// what has no counterpart. It reads versions 2 (containerd 1.6 and 1.7) to 4 (containerd 2.4) of containerd's
// file. It does not judge the result: package config does.
package fromcontainerd

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/userns-shim/userns-shim/internal/config"
)

// Translation is what became of a file.
type Translation struct {
	Config config.Config `json:"-"`
	// Carried are the settings that are in Config.
	Carried []Carried `json:"carried"`
	// Notes are the settings that are not, and what else is to know. Values that are containerd's
	// defaults have none.
	Notes []Note `json:"notes"`
}

// Carried is one setting and its new place.
type Carried struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Note says why a setting is not carried over. It has no value where that could be a password.
type Note struct {
	From  string `json:"from"`
	Value string `json:"value,omitempty"`
	Why   string `json:"why"`
}

// setting is one value of containerd's file. Its key is the path below the plugin that has it, in the form of
// version 2 for what moved since; a runtime's settings have NAME in the place of its name.
type setting struct {
	from, key, runtime string
	value              any
}

// Translate takes the merged tree of a file and its imports.
func Translate(tree map[string]any) (*Translation, error) {
	version, _ := tree["version"].(int64)
	if version < 2 || version > 4 {
		return nil, fmt.Errorf("version %d of containerd's configuration: want 2 to 4; containerd config migrate writes it", version)
	}
	t := &translator{out: &Translation{Config: config.Default()}, handlers: map[string]config.RuntimeHandler{}}
	settings := collect(tree)
	if version == 2 {
		settings = append(settings, olderDefaults(settings)...)
	}
	for _, s := range settings {
		if err := t.apply(s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.from, err)
		}
	}
	t.finish()
	return t.out, nil
}

// olderDefaults are settings that a file of version 2 leaves out and that mean something else there than
// here: containerd 1.x does not let pods without privilege open low ports and send pings.
func olderDefaults(settings []setting) []setting {
	var out []setting
	for _, key := range []string{"enable_unprivileged_ports", "enable_unprivileged_icmp"} {
		if !slices.ContainsFunc(settings, func(s setting) bool { return s.key == key }) {
			out = append(out, setting{from: criPlugin + "." + key, key: key, value: false})
		}
	}
	return out
}

type translator struct {
	out      *Translation
	handlers map[string]config.RuntimeHandler
	dropped  []string
	drivers  map[string]bool // SystemdCgroup, by handler
	stream   struct{ host, port string }
}

func (t *translator) apply(s setting) error {
	r, ok := rules[s.key]
	switch {
	case !ok && strings.HasPrefix(s.key, "pinned_images."):
		return pinned(t, s)
	case !ok && empty(s.value):
		return nil
	case !ok:
		t.note(s, "userns-shim has no such setting")
		return nil
	}
	return r(t, s)
}

func (t *translator) carried(s setting, to string) {
	t.out.Carried = append(t.out.Carried, Carried{From: s.from, To: to})
}

func (t *translator) note(s setting, why string) {
	n := Note{From: s.from, Why: why}
	if !secret(s.key) {
		n.Value = fmt.Sprint(s.value)
	}
	t.out.Notes = append(t.out.Notes, n)
}

// secret tells whether a value can hold a password.
func secret(key string) bool {
	return strings.HasPrefix(key, "registry.") && key != "registry.config_path"
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return reflect.ValueOf(v).IsZero()
}

// finish settles what more than one setting decides.
func (t *translator) finish() {
	cfg := &t.out.Config
	for _, name := range t.dropped {
		delete(t.handlers, name)
		delete(t.drivers, name)
		t.out.Carried = slices.DeleteFunc(t.out.Carried, func(c Carried) bool {
			return strings.HasPrefix(c.To, "runtimeHandlers."+name+".")
		})
	}
	if len(t.handlers) > 0 {
		cfg.RuntimeHandlers = t.handlers
	}
	if _, ok := cfg.RuntimeHandlers[cfg.DefaultRuntimeHandler]; !ok {
		t.out.Notes = append(t.out.Notes, Note{
			From: "default_runtime_name", Value: cfg.DefaultRuntimeHandler,
			Why: "is not carried over as a handler: choose defaultRuntimeHandler among " + strings.Join(sortedKeys(cfg.RuntimeHandlers), ", "),
		})
		cfg.DefaultRuntimeHandler = sortedKeys(cfg.RuntimeHandlers)[0]
	}
	t.settleDriver()
	if t.stream.port != "" {
		cfg.Streaming.Listen = hostPort(t.stream.host, t.stream.port)
	}
	slices.SortFunc(t.out.Carried, func(a, b Carried) int { return strings.Compare(a.To+a.From, b.To+b.From) })
	slices.SortFunc(t.out.Notes, func(a, b Note) int { return strings.Compare(a.From, b.From) })
}

// settleDriver takes the cgroup driver of the default handler: containerd has one for each, and kubelet
// one for the node.
func (t *translator) settleDriver() {
	cfg := &t.out.Config
	systemd := t.drivers[cfg.DefaultRuntimeHandler]
	cfg.CgroupDriver = config.CgroupDriverCgroupfs
	if systemd {
		cfg.CgroupDriver = config.CgroupDriverSystemd
	}
	for _, name := range sortedKeys(t.drivers) {
		if t.drivers[name] != systemd {
			t.out.Notes = append(t.out.Notes, Note{
				From: "runtimes." + name + ".options.SystemdCgroup", Value: fmt.Sprint(t.drivers[name]),
				Why: "differs from that of the default handler: all handlers have one cgroup driver, " + string(cfg.CgroupDriver),
			})
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
