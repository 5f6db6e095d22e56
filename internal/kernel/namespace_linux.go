package kernel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// probeUserNamespaces makes one. ENOSPC is the answer of a node whose limit is 0 or used up, to root too.
func (p *Prober) probeUserNamespaces() error {
	ns, err := p.userNS()
	if err == nil {
		ns.Close()
		return nil
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) {
		return &FeatureError{Feature: userNamespaces.name, Needs: userNamespaces.needs, Err: err}
	}
	return userNamespaces.answer("", err)
}

func probePIDFD() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("open own process: %w", err)
	}
	return unix.Close(fd)
}

// refused says whether an error means that the kernel does not know what was asked of it, as opposed to
// that it did not get so far: EPERM for lack of privilege, EMFILE, ENOMEM and the like.
func refused(err error) bool {
	for _, errno := range []error{unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.ENODEV} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
