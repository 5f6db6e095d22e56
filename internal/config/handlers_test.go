package config

import (
	"strings"
	"testing"
)

// TestHandlersAreValidated: what a handler or the images' part cannot be is said with the field's name.
func TestHandlersAreValidated(t *testing.T) {
	handler := func(fields string) string { return "runtimeHandlers:\n  runc: {" + fields + "}" }
	for name, tc := range map[string]struct{ text, says string }{
		"everything": {handler("runtime: io.containerd.runc.v2, binaryName: /usr/bin/crun, snapshotter: native, userNamespaces: always, " +
			"podsPerShim: 16, root: /run/crun, shimCgroup: /shims, podAnnotations: [a/*], containerAnnotations: [b], privilegedWithoutHostDevices: true, " +
			"maxIDsPerPod: 131072, reservations: [legacy, team-*]"), ""},
		"a shim by its path":      {handler("runtime: /usr/local/bin/containerd-shim-own"), ""},
		"a shim by half a path":   {handler("runtime: bin/shim"), "runtimeHandlers.runc.runtime is"},
		"a shim without a name":   {handler(`runtime: ""`), "runtimeHandlers.runc.runtime is"},
		"no runtime":              {handler(`binaryName: ""`), "runtimeHandlers.runc.binaryName is empty"},
		"half a path":             {handler("binaryName: bin/crun"), "runtimeHandlers.runc.binaryName is"},
		"policy":                  {handler("userNamespaces: sometimes"), "runtimeHandlers.runc.userNamespaces is"},
		"no pod in a shim":        {handler("podsPerShim: 0"), "runtimeHandlers.runc.podsPerShim is 0"},
		"state":                   {handler("root: run"), "runtimeHandlers.runc.root is"},
		"cgroup":                  {handler("shimCgroup: shims"), "runtimeHandlers.runc.shimCgroup is"},
		"annotation":              {handler(`podAnnotations: [a, "[b"]`), "runtimeHandlers.runc.podAnnotations[1] is"},
		"empty annotation":        {handler(`containerAnnotations: [""]`), "runtimeHandlers.runc.containerAnnotations[0] is"},
		"half a range of ids":     {handler("maxIDsPerPod: 70000"), "runtimeHandlers.runc.maxIDsPerPod is 70000: want a multiple of 65536"},
		"more ids than exist":     {handler("maxIDsPerPod: 4294967296"), "4294967296"},
		"reservation":             {handler(`reservations: [a, "[b"]`), "runtimeHandlers.runc.reservations[1] is"},
		"ids for no namespace":    {handler("userNamespaces: never, maxIDsPerPod: 65536"), "maxIDsPerPod or reservations"},
		"an unknown field":        {handler("podsInShim: 2"), "line 2: runtimeHandlers.runc.podsInShim is unknown: do you mean runtimeHandlers.runc.podsPerShim?"},
		"a name of no class":      {"defaultRuntimeHandler: Runc\nruntimeHandlers:\n  Runc: {}", `runtimeHandlers has the name "Runc"`},
		"a missing default":       {"runtimeHandlers:\n  crun: {}", "defaultRuntimeHandler is"},
		"pinned":                  {"registry: {pinnedImages: [busybox, registry.example/*]}", ""},
		"everything pinned":       {`registry: {pinnedImages: [a, "*"]}`, "registry.pinnedImages[1] is"},
		"no progress, less":       {"registry: {pullProgressTimeout: -1s}", "registry.pullProgressTimeout is negative"},
		"no hosts.toml":           {`registry: {configPath: ""}`, ""},
		"two directories":         {"registry: {configPath: /etc/a:/etc/b}", ""},
		"a directory to nowhere":  {"registry: {configPath: /etc/a:b}", "registry.configPath is"},
		"two handlers of one OCI": {"runtimeHandlers:\n  runc: {}\n  always: {userNamespaces: always}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tc.text))
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error is %v, want %q", err, tc.says)
			}
		})
	}
}

// TestHandlerDefaults: a handler has the defaults of its own, and its list replaces the default's.
func TestHandlerDefaults(t *testing.T) {
	cfg, err := Parse([]byte("defaultRuntimeHandler: crun\nruntimeHandlers:\n  crun: {binaryName: crun}"))
	if err != nil {
		t.Fatal(err)
	}
	h, ok := cfg.RuntimeHandlers["crun"]
	if !ok || len(cfg.RuntimeHandlers) != 1 || h.Runtime != "io.containerd.runc.v2" || h.UserNamespaces != UserNamespacesOptIn || h.PodsPerShim != 1 {
		t.Errorf("handlers are %+v", cfg.RuntimeHandlers)
	}
}
