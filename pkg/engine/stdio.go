package engine

import "github.com/userns-shim/userns-shim/pkg/container"

// devNull stands for a stream that nobody reads.
const devNull = "/dev/null"

// shimStdio fills in what the runc shim wants: output streams are either all absent, or all named.
// A terminal has no standard error.
func shimStdio(io container.Stdio) container.Stdio {
	if io.Terminal || io.Stdin == "" && io.Stdout == "" && io.Stderr == "" {
		return io
	}
	if io.Stdout == "" {
		io.Stdout = devNull
	}
	if io.Stderr == "" {
		io.Stderr = devNull
	}
	return io
}
