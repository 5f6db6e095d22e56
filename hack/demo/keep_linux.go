package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// closeOnExec keeps an inherited descriptor from the daemons, which would hold it open for good.
func closeOnExec(fd int) { unix.CloseOnExec(fd) }

// redirectOutput makes a file this process's standard output and error.
func redirectOutput(file *os.File) error {
	for _, std := range []*os.File{os.Stdout, os.Stderr} {
		if err := unix.Dup3(int(file.Fd()), int(std.Fd()), 0); err != nil {
			return fmt.Errorf("redirect %s: %w", std.Name(), err)
		}
	}
	return nil
}
