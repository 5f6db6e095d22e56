package manifests

import (
	"path/filepath"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// object is one Kubernetes object as it is sent to the API server.
type object map[string]any

func (o object) str(path ...string) string {
	s, _ := o.at(path...).(string)
	return s
}

func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

// id names an object.
func (o object) id() string { return o.str("kind") + "/" + o.str("metadata", "name") }

// build is kustomize build of an overlay.
func build(t *testing.T, overlay string) []object {
	t.Helper()
	dir := filepath.Join("..", "..", "manifests", "overlays", overlay)
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("kustomize build %s: %v", overlay, err)
	}
	var out []object
	for _, r := range built.Resources() {
		m, err := r.Map()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// overlays are all that there are, with the objects that each has.
var overlays = map[string][]string{
	"default": {
		"ConfigMap/userns-shim-*", "DaemonSet/userns-shim-installer", "DaemonSet/userns-shim-uninstaller", "Namespace/userns-shim",
		"RuntimeClass/userns", "RuntimeClass/userns-opt-in", "ServiceAccount/userns-shim-installer",
	},
	"monitoring": {
		"ConfigMap/userns-shim-*", "ConfigMap/userns-shim-dashboard", "ConfigMap/userns-shim-node-problem-detector", "DaemonSet/userns-shim-installer",
		"DaemonSet/userns-shim-uninstaller", "Namespace/userns-shim", "PodMonitor/userns-shim", "PrometheusRule/userns-shim",
		"RuntimeClass/userns", "RuntimeClass/userns-opt-in", "ServiceAccount/userns-shim-installer",
	},
	"canary": {
		"ConfigMap/userns-shim-*", "ConfigMap/userns-shim-canary-*", "DaemonSet/userns-shim-installer", "DaemonSet/userns-shim-installer-canary",
		"DaemonSet/userns-shim-uninstaller", "Namespace/userns-shim", "RuntimeClass/userns", "RuntimeClass/userns-opt-in",
		"ServiceAccount/userns-shim-installer", "ServiceAccount/userns-shim-installer-canary",
	},
}
