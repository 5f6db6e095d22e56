package foreign

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The files in which instances have their ids, below root. Incus and LXD keep instances in a database of their own; what lies on disk beside
// it are the configuration of each that was started since the boot, and a copy of each instance's settings in its storage.
var (
	lxcConfigs = []string{
		"run/incus/*/lxc.conf", "var/log/incus/*/lxc.conf",
		"run/lxd/*/lxc.conf", "var/log/lxd/*/lxc.conf", "var/snap/lxd/common/lxd/logs/*/lxc.conf",
		"var/lib/lxc/*/config",
	}
	lxcBackups = []string{
		"var/lib/incus/storage-pools/*/containers/*/backup.yaml",
		"var/lib/lxd/storage-pools/*/containers/*/backup.yaml",
		"var/snap/lxd/common/lxd/storage-pools/*/containers/*/backup.yaml",
	}
)

// LXC reads which ids instances of Incus, LXD and LXC have, below root.
func LXC(root string) Source {
	below := func(patterns []string) []string {
		out := make([]string, len(patterns))
		for i, p := range patterns {
			out[i] = filepath.Join(root, p)
		}
		return out
	}
	return Source{name: "lxc", find: func(ctx context.Context, c claims, f *found) error {
		known := map[string]bool{}
		read := func(parse func(text []byte, ranges *idRanges) error) func(string) error {
			return func(path string) error {
				text, err := readSmall(path)
				if err != nil {
					return err
				}
				var ranges idRanges
				if err := parse(text, &ranges); err != nil {
					return fmt.Errorf("read %s: %w", path, err)
				}
				for _, r := range ranges {
					o := Owner{Kind: KindLXC, Range: r, Who: "instance " + filepath.Base(filepath.Dir(path)), Where: path}
					if key := o.Who + r.String(); !known[key] && c.admit(&o, "") {
						known[key] = true
						f.add(o)
					}
				}
				return nil
			}
		}
		if err := forEachFile(ctx, below(lxcConfigs), read(lxcConfig)); err != nil {
			return err
		}
		return forEachFile(ctx, below(lxcBackups), read(lxcBackup))
	}}
}

// lxcConfig reads lines such as "lxc.idmap = u 0 1000000 65536"; before LXC 2.1 the key was lxc.id_map.
func lxcConfig(text []byte, ranges *idRanges) error {
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(string(line), "=")
		if key = strings.TrimSpace(key); key != "lxc.idmap" && key != "lxc.id_map" {
			continue
		}
		var kind string
		var inner, start, length int64
		if _, err := fmt.Sscan(value, &kind, &inner, &start, &length); err != nil {
			return fmt.Errorf("id map %.80q: %w", value, err)
		}
		ranges.add(start, length)
	}
	return nil
}

// lxcInstance is what counts here of an instance's settings.
type lxcInstance struct {
	Config map[string]string `yaml:"config"`
}

// lxcBackup reads the id maps that an instance has on disk and gets at its next start.
func lxcBackup(text []byte, ranges *idRanges) error {
	var backup struct {
		Container lxcInstance `yaml:"container"`
		Instance  lxcInstance `yaml:"instance"`
	}
	if err := yaml.Unmarshal(text, &backup); err != nil {
		return err
	}
	for _, instance := range []lxcInstance{backup.Container, backup.Instance} {
		for _, key := range []string{"volatile.last_state.idmap", "volatile.idmap.current", "volatile.idmap.next"} {
			if instance.Config[key] == "" {
				continue
			}
			var entries []struct {
				Hostid, Maprange int64
			}
			if err := json.Unmarshal([]byte(instance.Config[key]), &entries); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			for _, e := range entries {
				ranges.add(e.Hostid, e.Maprange)
			}
		}
	}
	return nil
}
