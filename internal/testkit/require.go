package testkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// BinEnv names the directory of the programs that `make tools` and `make build`
// make. Unset, it is bin/ of the checkout that the test runs in.
const BinEnv = "USERNS_SHIM_BIN"

// RequireRoot skips the test when it runs without root. Root that lacks
// CAP_SYS_ADMIN over its user namespace fails it: such a machine should run the tests
// without root instead.
//
// Packages whose tests import testkit form the integration tier, which runs as root;
// this call is therefore the only way to ask for root.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: make integration")
	}
	ok, err := hasSysAdmin()
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		t.Fatal("runs as root without CAP_SYS_ADMIN, which namespaces and mounts need")
	}
}

// RequireBin returns the absolute path of a program that `make tools` or `make build`
// makes, such as "runc" or "cni/bridge". Where it is missing, or out of reach, the test
// fails as root and is skipped otherwise.
func RequireBin(t testing.TB, name string) string {
	t.Helper()
	path, err := findBin(os.Getenv(BinEnv), name)
	switch {
	case err == nil:
		return path
	case os.Geteuid() != 0 && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)):
		t.Skipf("%v (make build tools makes it)", err)
	default:
		t.Fatalf("%v (make build tools makes it)", err)
	}
	return ""
}

// findBin looks for an executable file in dir, or in the checkout's bin/ when dir is empty.
// An error that wraps fs.ErrNotExist means that it has not been built.
func findBin(dir, name string) (string, error) {
	if dir == "" {
		root, err := checkout()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, "bin")
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return "", fmt.Errorf("find program %s: %w", name, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("find program %s: %w", name, err)
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("find program %s: %s is not an executable file", name, path)
	}
	return path, nil
}

// checkout returns the directory with go.mod above the one that the test runs in.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find the checkout: no go.mod above the working directory")
		}
		dir = parent
	}
}
