package ocispec

import (
	"errors"
	"fmt"
)

// What the caller can do about an error of this package.
var (
	// ErrInvalid means that the request contradicts itself or is malformed; the client must change it.
	ErrInvalid = errors.New("invalid container configuration")
	// ErrUnsupported means that the host, or the pod's user namespace, cannot do what is asked.
	ErrUnsupported = errors.New("not supported")
	// ErrRROUnsupported is ErrUnsupported for a recursive read-only mount, which kubelet tells from others.
	ErrRROUnsupported = fmt.Errorf("recursive read-only mounts: %w", ErrUnsupported)
	// ErrNoCommand is ErrInvalid for a container whose image and request name no command.
	ErrNoCommand = fmt.Errorf("%w: no command specified", ErrInvalid)
	// ErrUserNotFound means that the image's /etc/passwd lacks the user.
	ErrUserNotFound = errors.New("user not found in the image")
	// ErrGroupNotFound means that the image's /etc/group lacks the group.
	ErrGroupNotFound = errors.New("group not found in the image")
	// ErrIDNotMapped means that a uid or gid has no host id in the pod's user namespace.
	ErrIDNotMapped = errors.New("id not mapped in the pod's user namespace")
)

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

func unsupportedf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))
}
