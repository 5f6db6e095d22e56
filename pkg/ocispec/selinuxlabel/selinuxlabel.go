// Package selinuxlabel gives pods and containers SELinux labels by go-selinux, which keeps the categories
// that are in use for the whole process. On a host without SELinux all labels are empty and nothing is
// done. It does not apply labels to processes or mounts: the OCI runtime and the kernel do.
package selinuxlabel

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// Host is the labels of this machine.
type Host struct{}

// Resolve completes what a client asks for with the host's defaults. Where it asks for nothing, the label
// has the user, role, type and level of the process label inherit; without that either, categories that no
// other label has. Release gives them back. A malformed level wraps ocispec.ErrInvalid, also where the
// host is without SELinux.
func (Host) Resolve(want *ocispec.SELinux, inherit string) (ocispec.SELinuxLabels, error) {
	var none ocispec.SELinuxLabels
	options, err := ocispec.SELinuxOptions(want)
	if err != nil {
		return none, err
	}
	if len(options) == 0 {
		if options, err = selinux.DupSecOpt(inherit); err != nil {
			return none, fmt.Errorf("inherit SELinux label %q: %w", inherit, err)
		}
	}
	process, mount, err := label.InitLabels(options)
	if err != nil {
		return none, fmt.Errorf("%w: SELinux label of %q: %w", ocispec.ErrInvalid, options, err)
	}
	return ocispec.SELinuxLabels{Process: process, Mount: mount}, nil
}

// Reserve keeps the categories of a label that an earlier process has given out.
func (Host) Reserve(process string) error {
	if err := selinux.ReserveLabelV2(process); err != nil && !errors.Is(err, selinux.ErrMCSAlreadyExists) {
		return fmt.Errorf("reserve SELinux label %q: %w", process, err)
	}
	return nil
}

// Release gives the categories of a process label back.
func (Host) Release(process string) { selinux.ReleaseLabel(process) }

// Relabel labels path and all below it for one pod alone. A filesystem without labels is left as it is.
func (Host) Relabel(path, mount string) error {
	err := label.Relabel(path, mount, false)
	if err != nil && !errors.Is(err, syscall.ENOTSUP) {
		return fmt.Errorf("relabel %s: %w", path, err)
	}
	return nil
}
