package e2epackage

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// packagesEnv names the directory with the packages of two versions, which make e2e-package makes before the tests;
// unset, it is the checkout's.
const packagesEnv = "USERNS_SHIM_PACKAGES"

// version is one of the two.
type version struct {
	dir      string // below the packages' directory
	program  string // what userns-shim version prints
	packages string // the version of its packages
}

var (
	older = version{dir: "older", program: "v1.0.0", packages: "1.0.0"}
	newer = version{dir: "newer", program: "v1.1.0-rc.1", packages: "1.1.0~rc.1"}
)

func TestMain(m *testing.M) {
	os.Exit(nodetest.Main(m, nil))
}

// file is the path of one file of a version.
func (v version) file(t *testing.T, format string, args ...any) string {
	t.Helper()
	return made(t, packagesEnv, "_output/package-test", filepath.Join(v.dir, fmt.Sprintf(format, args...)))
}

// made is the path of a file that make e2e-package makes, in the directory that a variable of the environment names or
// else the checkout's: where it is missing the test fails.
func made(t *testing.T, variable, dir, name string) string {
	t.Helper()
	testkit.RequireRoot(t)
	if named := os.Getenv(variable); named != "" {
		dir = named
	} else {
		dir = filepath.Join("../..", dir)
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v (make e2e-package makes it)", err)
	}
	return path
}

func (v version) deb(t *testing.T, arch string) string {
	t.Helper()
	return v.file(t, "userns-shim_%s-1_%s.deb", v.packages, arch)
}

func (v version) rpm(t *testing.T, arch string) string {
	t.Helper()
	return v.file(t, "userns-shim-%s-1.%s.rpm", v.packages, rpmArch[arch])
}

func (v version) tarball(t *testing.T, arch string) string {
	t.Helper()
	return v.file(t, "userns-shim-%s-linux-%s.tar.gz", v.packages, arch)
}

// rpmArch are the architectures as rpm calls them.
var rpmArch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// run runs a program and returns what it printed; it has to succeed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// thisArch is the architecture on which packages can be run.
const thisArch = runtime.GOARCH
