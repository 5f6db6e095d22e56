package e2ekubelet

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// terminate asks a process to end and waits until it has.
func terminate(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "process has ended", func() error {
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pid %d: %w", pid, err)
		}
		return nil
	})
}
