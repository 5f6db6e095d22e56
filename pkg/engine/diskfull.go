package engine

import (
	"errors"
	"strings"
	"syscall"
)

// fullError is an error of containerd that a full disk or quota is the cause of. It wraps the kernel's.
type fullError struct {
	err   error
	errno syscall.Errno
}

func (e *fullError) Error() string { return "the disk of containerd is full: " + e.err.Error() }

func (e *fullError) Unwrap() []error { return []error{e.err, e.errno} }

// explainFull recognises what a full disk is the cause of. containerd has no code for it, so nothing but the
// kernel's text arrives here.
func explainFull(err error) error {
	if err == nil {
		return nil
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if !errors.Is(err, errno) && strings.Contains(err.Error(), errno.Error()) {
			return &fullError{err: err, errno: errno}
		}
	}
	return err
}
