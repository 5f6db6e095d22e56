package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

func seccomp(kind runtimeapi.SecurityProfile_ProfileType, ref string) nodetest.ContainerOption {
	return security(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: ref}
	})
}

// noMkdir is a profile that forbids what no other does.
const noMkdir = `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
	{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}`

func TestSeccomp(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	file := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(file, []byte(noMkdir), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		profile nodetest.ContainerOption
		mode    string // of /proc: 2 is a filter
		mkdir   bool
	}{
		"runtime default": {seccomp(runtimeapi.SecurityProfile_RuntimeDefault, ""), "2", true},
		"localhost":       {seccomp(runtimeapi.SecurityProfile_Localhost, file), "2", false},
		"unconfined":      {seccomp(runtimeapi.SecurityProfile_Unconfined, ""), "0", true},
	} {
		t.Run(name, func(t *testing.T) {
			bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
				c := n.RunPod(t, opts...).Run(t, image, tt.profile)
				if got := statusOf(t, c)["Seccomp"]; got != tt.mode {
					t.Errorf("seccomp mode %s, want %s", got, tt.mode)
				}
				if r, err := c.TryExec(t.Context(), "mkdir", "/made"); err != nil || (r.ExitCode == 0) != tt.mkdir {
					t.Errorf("mkdir: %v, %v, want success: %t", r, err, tt.mkdir)
				}
			})
		})
	}
}

func TestSeccompProfileThatIsMissingOrMalformed(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	file := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	pod := n.RunPod(t)
	for _, path := range []string{file, file + ".missing"} {
		wantCreateError(t, pod, image, codes.InvalidArgument, path, seccomp(runtimeapi.SecurityProfile_Localhost, path))
	}
}
