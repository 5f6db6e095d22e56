package labnode

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Tools is the directory of programs that `make tools` and `make build` fill: containerd,
// containerd-shim-runc-v2, ctr, runc, userns-shim, and cni/ with the network plugins.
type Tools string

// FindTools returns bin/ of the module that contains dir.
func FindTools(dir string) (Tools, error) {
	root, err := ModuleRoot(dir)
	if err != nil {
		return "", err
	}
	return Tools(filepath.Join(root, "bin")), nil
}

// ModuleRoot is the nearest directory at or above dir that has a go.mod.
func ModuleRoot(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find module root: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("find module root: no go.mod at or above %s", dir)
		}
	}
}

// Path is the path of one program.
func (t Tools) Path(name string) string { return filepath.Join(string(t), name) }

// CNI is the directory of the network plugins.
func (t Tools) CNI() string { return t.Path("cni") }

// Check names every program that is missing.
func (t Tools) Check(names ...string) error {
	var errs []error
	for _, name := range names {
		if _, err := os.Stat(t.Path(name)); err != nil {
			errs = append(errs, fmt.Errorf("%w (`make tools` builds the tools, `make build` userns-shim)", err))
		}
	}
	return errors.Join(errs...)
}

// searchPath is a PATH on which the tools win over what the machine has installed.
func (t Tools) searchPath() string {
	return "PATH=" + string(t) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}
