package e2ekubelet

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// kill ends a process at once.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitNoProcess(t, pid)
}

// awaitNoProcess waits until a process has ended and its parent knows.
func awaitNoProcess(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "process has ended", func() error {
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pid %d: %w", pid, err)
		}
		return nil
	})
}
