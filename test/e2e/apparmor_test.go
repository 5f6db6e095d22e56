package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// hostHasAppArmor says that the kernel enforces profiles.
func hostHasAppArmor() bool {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(enabled), "Y")
}

// appArmor asks for a profile.
func appArmor(kind runtimeapi.SecurityProfile_ProfileType, ref string) nodetest.ContainerOption {
	return security(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Apparmor = &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: ref}
	})
}

// TestAppArmorWhereTheHostHasNone is the clear error; no profile and Unconfined need none.
func TestAppArmorWhereTheHostHasNone(t *testing.T) {
	if hostHasAppArmor() {
		t.Skip("the host has AppArmor: TestAppArmor holds what is then")
	}
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		pod.Run(t, image)
		pod.Run(t, image, appArmor(runtimeapi.SecurityProfile_Unconfined, ""))
		wantCreateError(t, pod, image, codes.FailedPrecondition, "AppArmor", appArmor(runtimeapi.SecurityProfile_RuntimeDefault, ""))
		wantCreateError(t, pod, image, codes.FailedPrecondition, "e2e-profile", appArmor(runtimeapi.SecurityProfile_Localhost, "e2e-profile"))
	})
}

// noSecret is a profile that forbids one file and allows the rest.
const noSecret = `profile e2e-no-secret flags=(attach_disconnected,mediate_deleted) {
  capability,
  network,
  file,
  signal,
  ptrace,
  deny /etc/passwd r,
}
`

// loadProfile loads a profile into the kernel until the test ends.
func loadProfile(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	parser := func(flag string) error {
		out, err := exec.Command("apparmor_parser", flag, file).CombinedOutput()
		if err != nil {
			t.Logf("apparmor_parser %s: %s", flag, out)
		}
		return err
	}
	if err := parser("--replace"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := parser("--remove"); err != nil {
			t.Error(err)
		}
	})
}

// appArmorCases are profiles that a container can ask for.
var appArmorCases = map[string]struct {
	profile nodetest.ContainerOption
	current string // what the kernel says of the process
	reads   bool   // /etc/passwd
}{
	"runtime default":  {appArmor(runtimeapi.SecurityProfile_RuntimeDefault, ""), "userns-shim.default (enforce)", true},
	"nothing said":     {security(func(*runtimeapi.LinuxContainerSecurityContext) {}), "userns-shim.default (enforce)", true},
	"localhost":        {appArmor(runtimeapi.SecurityProfile_Localhost, "e2e-no-secret"), "e2e-no-secret (enforce)", false},
	"unconfined":       {appArmor(runtimeapi.SecurityProfile_Unconfined, ""), "unconfined", true},
	"privileged":       {privileged, "unconfined", true},
	"deprecated field": {security(func(s *runtimeapi.LinuxContainerSecurityContext) { s.ApparmorProfile = "localhost/e2e-no-secret" }), "e2e-no-secret (enforce)", false}, //nolint:staticcheck // kubelet before 1.30
}

// TestAppArmor holds that profiles are applied where the host has them, to each container of a pod its own.
func TestAppArmor(t *testing.T) {
	if !hostHasAppArmor() {
		t.Skip("the kernel has no AppArmor: TestAppArmorWhereTheHostHasNone holds what is then")
	}
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	loadProfile(t, noSecret)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, append(opts, privilegedPod)...) // as kubelet says of a pod with one privileged container
		for name, tt := range appArmorCases {
			c := pod.Run(t, image, tt.profile)
			// One exec, for each is dear in the machine that has AppArmor.
			const look = "cat /proc/self/attr/current /proc/1/attr/current && cat /etc/passwd >/dev/null"
			r, err := c.TryExec(t.Context(), "sh", "-c", look)
			if err != nil || (r.ExitCode == 0) != tt.reads {
				t.Errorf("%s: reading /etc/passwd: %v, %v, want success: %t", name, r, err, tt.reads)
			}
			if got, want := string(r.GetStdout()), tt.current+"\n"+tt.current+"\n"; got != want {
				t.Errorf("%s: an exec and the container run under %q, want %q", name, got, want)
			}
		}
		wantCreateError(t, pod, image, codes.FailedPrecondition, "e2e-absent", appArmor(runtimeapi.SecurityProfile_Localhost, "e2e-absent"))
	})
}
