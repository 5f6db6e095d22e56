package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestWitnessKnowsExitCode(t *testing.T) {
	for script, want := range map[string]uint32{"read x; exit 9": 9, "read x; kill -TERM $$": 143, "read x": 1} {
		cmd := exec.Command("sh", "-c", script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w, err := newWitness(uint32(cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if exit, err := w.exit(short); !errors.Is(err, errNoWitness) {
			t.Errorf("%q runs, and the witness says %+v, %v", script, exit, err)
		}
		cancel()
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its error is the exit code
		exit, err := w.exit(t.Context())
		w.close()
		if errors.Is(err, errNoWitness) && !kernelTells(t) {
			t.Skipf("the kernel does not keep exit codes for pidfds (6.15): %v", err)
		}
		if err != nil || exit.Code != want {
			t.Errorf("%q: %+v, %v, want code %d", script, exit, err, want)
		}
	}
}

// kernelTells says whether the kernel is 6.15 or later.
func kernelTells(t *testing.T) bool {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(release), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 15
}
