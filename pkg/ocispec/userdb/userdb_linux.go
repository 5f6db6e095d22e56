// Package userdb opens /etc/passwd and /etc/group below a container's root filesystem, for
// ocispec.ResolveUser. It does not parse them.
package userdb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// maxSize bounds what is read of one file, in bytes.
const maxSize = 10 << 20

var errTooLarge = errors.New("larger than 10 MiB")

// RootOpener opens files below the directory root.
//
// The attacker is the image's author: /etc/passwd may be a symbolic link that points out of the
// root, a FIFO whose open blocks forever, a device whose open has effects, or a sparse file
// without end. So the path is resolved inside the root (openat2, RESOLVE_IN_ROOT), the result
// is only opened for reading when it is a regular file, and reading ends with an error after
// 10 MiB. Nothing here guards against a root that changes to another file in between: what was
// checked is the handle that is reopened.
func RootOpener(root string) ocispec.Opener {
	return func(path string) (io.ReadCloser, error) {
		handle, err := pathrs.OpenInRoot(root, path) // O_PATH: opens without effects
		if err != nil {
			return nil, notExist(path, err)
		}
		defer handle.Close()
		info, err := handle.Stat()
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s in the image is no regular file, its mode is %v", path, info.Mode())
		}
		f, err := pathrs.Reopen(handle, os.O_RDONLY)
		if err != nil {
			return nil, err
		}
		return &boundedFile{file: f, left: maxSize}, nil
	}
}

// notExist takes a path through something that is no directory (/etc is a file) for a file
// that does not exist, as libc's lookups do.
func notExist(path string, err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return &os.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	}
	return err
}

// boundedFile fails rather than ends at the limit: half of a user database would give a user
// other groups than it has.
type boundedFile struct {
	file *os.File
	left int64
}

func (f *boundedFile) Read(p []byte) (int, error) {
	if f.left < 0 {
		return 0, errTooLarge
	}
	n, err := f.file.Read(p)
	f.left -= int64(n)
	return n, err
}

func (f *boundedFile) Close() error {
	return f.file.Close()
}
