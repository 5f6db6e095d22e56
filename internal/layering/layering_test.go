package layering

import (
	"slices"
	"strings"
	"testing"
)

func TestHouse(t *testing.T) {
	g := load(t)
	for _, must := range []string{"internal/layering", "internal/version"} {
		if !slices.ContainsFunc(g.packages, func(p pkg) bool { return p.path == must }) {
			t.Errorf("%s was not loaded: this test sees less than the module has", must)
		}
	}
	for _, breach := range check(g) {
		t.Error(breach)
	}
}

// synthetic builds a graph of packages in module example.com/m. A package with
// an entry "a.go: x y" has a file a.go that imports x and y; own packages
// are written "./pkg/x".
func synthetic(packages map[string][]string, others map[string][]string) graph {
	g := graph{module: "example.com/m", imports: make(map[string][]string)}
	for from, to := range others {
		g.imports[from] = expand(g.module, to)
	}
	for path, entries := range packages {
		name := path[strings.LastIndex(path, "/")+1:]
		p := pkg{path: path, files: []file{{name: "doc.go", clause: name, doc: "Package " + name + " is synthetic.\n"}}}
		for _, entry := range entries {
			fileName, list, _ := strings.Cut(entry, ":")
			f := file{name: fileName, clause: name, imports: expand(g.module, strings.Fields(list))}
			p.files = append(p.files, f)
			if !f.test() {
				key := g.module + "/" + path
				g.imports[key] = append(g.imports[key], f.imports...)
			}
		}
		g.packages = append(g.packages, p)
	}
	return g
}

func expand(module string, imports []string) []string {
	var whole []string
	for _, imp := range imports {
		if own, ok := strings.CutPrefix(imp, "./"); ok {
			imp = module + "/" + own
		}
		whole = append(whole, imp)
	}
	return whole
}

const (
	clientPackage = "github.com/containerd/containerd/v2/client"
	codesPackage  = "google.golang.org/grpc/codes"
)

func TestCheckAccepts(t *testing.T) {
	g := synthetic(map[string][]string{
		"cmd/userns-shim":  {"main.go: ./pkg/cri ./pkg/engine ./pkg/sandbox ./pkg/sandbox/ns ./internal/config " + codesPackage, "serve_linux.go: " + unixPackage},
		"pkg/cri":          {"a.go: ./pkg/sandbox ./pkg/idpool ./internal/version " + codesPackage},
		"pkg/engine":       {"a.go: ./pkg/container " + clientPackage, "a_test.go: " + clientPackage},
		"pkg/container":    {"a.go: ./pkg/mounts ./pkg/sandbox", "a_test.go: ./internal/testkit ./pkg/state ./pkg/sandbox"},
		"pkg/sandbox":      {"a.go: ./pkg/sandbox/ns ./pkg/state ./internal/kernel", "b_linux.go: " + unixPackage},
		"pkg/sandbox/ns":   {"a_linux.go: ./internal/kernel " + unixPackage, "a_linux_test.go: " + unixPackage},
		"pkg/mounts":       {"a.go: ./internal/kernel"},
		"pkg/ocispec":      {"a.go: fmt"},
		"pkg/ocispec/user": {"a.go: ./pkg/ocispec"},
		"pkg/idpool":       {"a.go: fmt", "a_linux_test.go: " + unixPackage, "b_test.go: " + codesPackage},
		"pkg/state":        {"a.go: go.etcd.io/bbolt"},
		"internal/config":  {"a.go: fmt"},
		"internal/kernel":  {"a_linux.go: " + unixPackage},
		"internal/testkit": {"a_linux.go: testing ./internal/kernel " + unixPackage},
		"internal/version": {"a.go:"},
		"test/e2e":         {"a_test.go: ./internal/testkit ./pkg/engine " + clientPackage},
	}, map[string][]string{clientPackage: {"fmt"}})
	for _, breach := range check(g) {
		t.Errorf("a house in order is refused: %s", breach)
	}
}

// TestCheckRefuses breaks each rule once, and so shows that the rule is held.
func TestCheckRefuses(t *testing.T) {
	tests := map[string]struct {
		pkg     string
		entries []string
		others  map[string][]string
		want    string
	}{
		"leaf imports leaf":               {"pkg/idpool", []string{"a.go: ./pkg/state"}, nil, "pkg/idpool/a.go: imports pkg/state, against"},
		"leaf imports manager":            {"pkg/network", []string{"a.go: ./pkg/sandbox"}, nil, "imports pkg/sandbox, against"},
		"manager imports manager":         {"pkg/container", []string{"a.go: ./pkg/image"}, nil, "imports pkg/image, against"},
		"sandbox imports container":       {"pkg/sandbox", []string{"a.go: ./pkg/container"}, nil, "imports pkg/container, against"},
		"manager imports cri":             {"pkg/image", []string{"a.go: ./pkg/cri"}, nil, "imports pkg/cri, against"},
		"manager imports engine":          {"pkg/sandbox", []string{"a.go: ./pkg/engine"}, nil, "imports pkg/engine, against"},
		"manager's test imports engine":   {"pkg/sandbox", []string{"a_test.go: ./pkg/engine"}, nil, "imports pkg/engine, against"},
		"namespaces import their manager": {"pkg/sandbox/ns", []string{"a.go: ./pkg/sandbox"}, nil, "imports pkg/sandbox, against"},
		"cri imports engine":              {"pkg/cri", []string{"a.go: ./pkg/engine"}, nil, "imports pkg/engine, against"},
		"cri reads the config":            {"pkg/cri", []string{"a.go: ./internal/config"}, nil, "imports internal/config, against"},
		"container probes the kernel":     {"pkg/container", []string{"a.go: ./internal/kernel"}, nil, "imports internal/kernel, against"},
		"program imports testkit":         {"cmd/userns-shim", []string{"a.go: ./internal/testkit"}, nil, "imports internal/testkit, against"},

		"client outside engine":         {"pkg/image", []string{"a.go: " + clientPackage}, nil, "which only pkg/engine/... may"},
		"client in a test":              {"pkg/image", []string{"a_test.go: " + clientPackage}, nil, "which only pkg/engine/... may"},
		"client through another module": {"pkg/image", []string{"a.go: example.org/x"}, map[string][]string{"example.org/x": {clientPackage}}, "-> example.org/x -> " + clientPackage},

		"codes below cri":                {"pkg/stream", []string{"a.go: " + codesPackage}, nil, "which only pkg/cri/..., cmd/... may"},
		"unix in a file for all systems": {"pkg/mounts", []string{"a.go: " + unixPackage}, nil, "is not named *_linux.go"},
		"unix in such a test":            {"pkg/mounts", []string{"a_test.go: " + unixPackage}, nil, "is not named *_linux.go"},
		"unix in a pure package":         {"pkg/ocispec", []string{"a_linux.go: " + unixPackage}, nil, "which only cmd/userns-shim/..., "},
		"package without a place":        {"pkg/util", nil, nil, "pkg/util: has no place"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			breaches := check(synthetic(map[string][]string{tt.pkg: tt.entries}, tt.others))
			if len(breaches) != 1 || !strings.Contains(breaches[0], tt.want) {
				t.Errorf("check = %q, want one breach with %q", breaches, tt.want)
			}
		})
	}
}

func TestCheckRefusesWithoutPackageComment(t *testing.T) {
	for name, f := range map[string]file{
		"none":            {name: "a.go", clause: "idpool"},
		"of another name": {name: "a.go", clause: "idpool", doc: "Package pool leases ids.\n"},
		"none in main":    {name: "main.go", clause: "main"},
	} {
		t.Run(name, func(t *testing.T) {
			breaches := check(graph{module: "example.com/m", packages: []pkg{{path: "pkg/idpool", files: []file{f}}}})
			if len(breaches) != 1 || !strings.Contains(breaches[0], "has no package comment") {
				t.Errorf("check = %q, want the missing comment", breaches)
			}
		})
	}
}
