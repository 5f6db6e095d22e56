package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxProfile bounds the file of a seccomp profile, in bytes; the largest in use have some 20 KiB.
const maxProfile = 1 << 20

// readProfile reads the file of a seccomp profile. Its path is the client's: a FIFO would block for
// ever, and a device would not end.
func readProfile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err == nil && len(text) > maxProfile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxProfile)
	}
	return text, err
}
