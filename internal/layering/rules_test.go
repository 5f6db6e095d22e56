package layering

// A pattern names one package by its path below the module or, ending in
// "/...", that package and all below it.

// layer says which of the module's packages a package may import. A package may
// always import those of its own layer's pattern, and what lies below its own directory.
type layer struct {
	pkg  string
	may  []string
	tool bool // drives the program from outside: tests, benchmarks
}

// The direction is cmd -> cri -> managers -> leaves. No package imports one of its
// own row, with two exceptions: cmd knows all packages, for it does the wiring, and
// container knows sandbox, because a container is made in a sandbox and a sandbox is
// made before any container.
var (
	leaves = []string{
		"pkg/cgroups", "pkg/ocispec/...", "pkg/mounts/...", "pkg/network/...",
		"pkg/idpool/...", "pkg/state/...", "pkg/stats/...", "pkg/stream/...", "pkg/checkpoint", "pkg/varlink",
	}
	managers = []string{"pkg/sandbox/...", "pkg/container", "pkg/image"}
)

// layers is the whole house; the first pattern that matches counts. A package that
// no pattern matches is an error: it has to be given its place here.
var layers = []layer{
	{pkg: "cmd/...", may: []string{
		"pkg/...", "internal/admin", "internal/config", "internal/doctor", "internal/forecast", "internal/fromcontainerd", "internal/installer", "internal/kernel", "internal/metrics", "internal/labimage", "internal/selftest/...", "internal/statusz", "internal/version", "packaging",
	}},

	{pkg: "pkg/cri/...", may: join(managers, leaves, []string{"pkg/nri", "internal/kernel", "internal/version"})},

	// Beside cri: it holds the records of the managers against the ledger and the node.
	{pkg: "pkg/reconcile", may: join(managers, leaves)},
	{pkg: "pkg/rebuild", may: join(managers, leaves)},

	// As engine, it implements interfaces of the managers, which never know it.
	{pkg: "pkg/nri", may: join(managers, leaves)},

	// Managers declare the interfaces that engine implements, in terms of their own
	// types. So engine knows them, and they never know engine.
	{pkg: "pkg/engine/...", may: join(managers, leaves)},

	{pkg: "pkg/sandbox/ns/...", may: []string{"internal/kernel"}},
	{pkg: "pkg/sandbox/...", may: join(leaves, []string{"internal/kernel"})},
	{pkg: "pkg/container/...", may: join(leaves, []string{"pkg/sandbox"})},
	{pkg: "pkg/image/...", may: leaves},

	{pkg: "pkg/mounts/...", may: []string{"internal/kernel"}},
	{pkg: "pkg/cgroups"},
	{pkg: "pkg/ocispec/..."},
	{pkg: "pkg/network/..."},
	{pkg: "pkg/idpool/idnames", may: []string{"pkg/idpool", "pkg/varlink"}},
	{pkg: "pkg/idpool/..."},
	{pkg: "pkg/state/..."},
	{pkg: "pkg/checkpoint"},
	{pkg: "pkg/stats/..."},
	{pkg: "pkg/stream/..."},
	{pkg: "pkg/varlink"},

	{pkg: "internal/admin"},
	{pkg: "internal/config"},
	{pkg: "internal/configdoc", may: []string{"internal/config"}, tool: true},
	{pkg: "internal/fromcontainerd", may: []string{"internal/config"}},
	{pkg: "internal/doctor", may: []string{"internal/kernel", "pkg/idpool/..."}},
	{pkg: "internal/forecast"},
	{pkg: "internal/installer"},
	{pkg: "internal/kernel"},
	{pkg: "internal/metrics"},
	{pkg: "internal/statusz"},
	{pkg: "internal/version"},
	{pkg: "internal/selftest/...", may: []string{"internal/labimage"}},
	{pkg: "internal/layering"},
	{pkg: "packaging"},

	// The lab: what tests, demo and benchmarks run a node with.
	{pkg: "internal/labimage/...", tool: true},
	{pkg: "internal/leaks/...", tool: true},
	{pkg: "internal/labnode/...", may: []string{"internal/labimage", "internal/leaks"}, tool: true},
	{pkg: "internal/testkit/...", may: []string{"internal/kernel", "internal/labimage", "internal/labnode", "internal/leaks", "pkg/ocispec"}, tool: true},
	{pkg: "test/...", may: []string{"cmd/...", "pkg/...", "internal/..."}, tool: true},
	{pkg: "hack/...", may: []string{"cmd/...", "pkg/...", "internal/..."}, tool: true},
}

// restriction confines packages of other modules to a few places. Tools are free of it.
type restriction struct {
	imports []string
	within  []string
	tests   bool // holds for test files too
	// indirect also forbids to reach the import through any chain of packages
	// that does not pass one of within.
	indirect bool
}

var restrictions = []restriction{
	{
		imports:  []string{"github.com/containerd/containerd/v2/client"},
		within:   []string{"pkg/engine/..."},
		tests:    true,
		indirect: true,
	},
	{
		imports: []string{"google.golang.org/grpc/codes", "google.golang.org/grpc/status"},
		within:  []string{"pkg/cri/...", "cmd/..."},
	},
	{
		imports: []string{unixPackage},
		within: []string{
			"cmd/userns-shim/...", "pkg/sandbox/...", "pkg/cgroups", "pkg/container/...", "pkg/engine/...",
			"pkg/mounts/...", "pkg/network/...", "pkg/stream/...", "pkg/state", "pkg/stats", "pkg/varlink", "pkg/idpool/foreign", "internal/kernel", "internal/selftest/...",
		},
	},
}

// unixPackage is imported in files named for Linux only, those of tests included.
const unixPackage = "golang.org/x/sys/unix"

// beyondTests are the packages that no test file imports but those of their own and
// tools: managers and leaves are tested without containerd.
var beyondTests = []string{"cmd/...", "pkg/engine/..."}

func join(lists ...[]string) []string {
	var all []string
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}
