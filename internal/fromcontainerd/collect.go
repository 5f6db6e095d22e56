package fromcontainerd

import (
	"maps"
	"slices"
	"strings"
)

// The plugins whose settings concern userns-shim. All others stay containerd's own, which goes on to be the engine.
const (
	criPlugin     = "io.containerd.grpc.v1.cri"
	imagesPlugin  = "io.containerd.cri.v1.images"
	runtimePlugin = "io.containerd.cri.v1.runtime"
	nriPlugin     = "io.containerd.nri.v1.nri"
	tasksPlugin   = "io.containerd.service.v1.tasks-service"
	serverPlugin  = "io.containerd.server.v1.grpc"
)

// prefixes keep the keys of plugins apart that could have equal names.
var prefixes = map[string]string{
	criPlugin: "", imagesPlugin: "", runtimePlugin: "", nriPlugin: "nri.", tasksPlugin: "tasks.", serverPlugin: "grpc.",
}

// moved are keys that had another name in version 2 below the same plugin.
var moved = map[string]string{
	"containerd.snapshotter":                  "snapshotter",
	"containerd.disable_snapshot_annotations": "disable_snapshot_annotations",
	"containerd.discard_unpacked_layers":      "discard_unpacked_layers",
	"sandbox_image":                           "pinned_images.sandbox",
	runtimes + "NAME.sandbox_mode":            runtimes + "NAME.sandboxer",
}

const runtimes = "containerd.runtimes."

// whole are mappings that are one setting.
var whole = map[string]bool{
	"registry.mirrors": true, "registry.configs": true, "registry.auths": true, "registry.headers": true,
	"runtime_platforms": true, "containerd.default_runtime": true, "containerd.untrusted_workload_runtime": true,
}

// collect lists the settings of a tree in the order of their names.
func collect(tree map[string]any) []setting {
	var out []setting
	plugins, _ := tree["plugins"].(map[string]any)
	for _, id := range slices.Sorted(maps.Keys(plugins)) {
		prefix, ours := prefixes[id]
		section, ok := plugins[id].(map[string]any)
		if ours && ok {
			out = append(out, flatten(section, id+".", prefix)...)
		}
	}
	// Versions 2 and 3 have the address of the socket beside the plugins.
	if server, ok := tree["grpc"].(map[string]any); ok {
		out = append(out, flatten(server, "grpc.", "grpc.")...)
	}
	return out
}

// flatten gives every value below a mapping its full name (from) and its key.
func flatten(section map[string]any, from, key string) []setting {
	var out []setting
	for _, name := range slices.Sorted(maps.Keys(section)) {
		below, isMap := section[name].(map[string]any)
		if isMap && !whole[key+name] {
			out = append(out, flatten(below, from+name+".", key+name+".")...)
			continue
		}
		s := setting{from: from + name, key: key + name, value: section[name]}
		if rest, ok := strings.CutPrefix(s.key, runtimes); ok {
			s.runtime, rest, _ = strings.Cut(rest, ".")
			s.key = runtimes + "NAME." + rest
		}
		if now, ok := moved[s.key]; ok {
			s.key = now
		}
		out = append(out, s)
	}
	return out
}
