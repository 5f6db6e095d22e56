package testkit

import (
	"os/exec"
	"testing"
)

// RequireCRIU skips the test on a kernel that CRIU itself says it cannot work on. A CRIU that does not run at all fails it. It
// needs root.
func RequireCRIU(t testing.TB) {
	t.Helper()
	RequireRoot(t)
	criu := RequireBin(t, "criu")
	if out, err := exec.Command(criu, "--version").CombinedOutput(); err != nil {
		t.Fatalf("%s does not run: %v: %s", criu, err, out)
	}
	if out, err := exec.Command(criu, "check").CombinedOutput(); err != nil {
		t.Skipf("criu check says that CRIU cannot work on this kernel: %v: %s", err, out)
	}
}
