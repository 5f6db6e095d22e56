package foreign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

const (
	// getentTime is what one listing may take.
	getentTime = 10 * time.Second
	// getentGrace is how long its output is read after its end, when a child of it has it open.
	getentGrace = time.Second
)

// Getent lists by the program getent, so that a name service that hangs hangs in a process that can be killed. The program is a name
// or a path; without it there is nothing to list.
func Getent(program string) Lister {
	return func(ctx context.Context, database string, read func(io.Reader) error) error {
		ctx, cancel := context.WithTimeoutCause(ctx, getentTime, fmt.Errorf("getent %s took longer than %s", database, getentTime))
		defer cancel()
		cmd := exec.CommandContext(ctx, program, database)
		// A group of its own, so that the children of a name service's module end with it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = getentGrace
		reader, writer := io.Pipe()
		cmd.Stdout = writer
		reading := make(chan error, 1)
		go func() {
			err := read(reader)
			reading <- errors.Join(err, reader.Close())
		}()
		err := cmd.Run()
		writer.Close() // never fails
		err = errors.Join(notEnumerable(err), <-reading)
		switch {
		case errors.Is(err, exec.ErrNotFound):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		return err
	}
}

// notEnumerable takes a service that does not list its entries for one that has none: exit code 3 of getent.
func notEnumerable(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 {
		return nil
	}
	return err
}
