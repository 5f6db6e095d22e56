package e2epackage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestDebInstall looks at a Debian on which the package was installed.
func TestDebInstall(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	deb := r.put(t, older.deb(t, thisArch))
	out := r.run(t, "dpkg -i "+deb)
	if strings.Contains(out, "userns-shim:") || strings.Contains(out, "kubelet-ids") {
		t.Errorf("the installation complains: %s", out)
	}
	for script, want := range map[string]string{
		"userns-shim version": older.program,
		"cmp /etc/userns-shim/config.yaml - <<END\n$(userns-shim config default)\nEND": "",
		"dpkg --verify userns-shim":                                       "",
		"getsubids kubelet":                                               "0: kubelet 2013265920 100532224",
		"getsubids -g kubelet":                                            "0: kubelet 2013265920 100532224",
		"getent passwd kubelet | cut -d: -f6-":                            "/nonexistent:/usr/sbin/nologin",
		"systemctl is-enabled userns-shim.service":                        "enabled",
		"bash -nc '. /usr/share/bash-completion/completions/userns-shim'": "",
		// Findings about the unit are printed; containerd is not installed here.
		"systemd-analyze verify --man=no userns-shim.service": "",
	} {
		if got := r.run(t, script); got != want {
			t.Errorf("%s prints %q, want %q", script, got, want)
		}
	}
	users := r.read(t, "/etc/passwd") + r.read(t, "/etc/subuid")
	r.run(t, "dpkg -i "+deb)
	if again := r.read(t, "/etc/passwd") + r.read(t, "/etc/subuid"); again != users {
		t.Errorf("installed again, users and ids are\n%s\nand were\n%s", again, users)
	}
}

// TestDebUpgradeWithPodsRunning runs pods on the installed program, on a real containerd, and replaces and removes the
// package under them. What systemd would do to the service is done by hand here; the e2e-vm tier has a real one.
func TestDebUpgradeWithPodsRunning(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	r.run(t, "dpkg -i "+r.put(t, older.deb(t, thisArch)))
	n := nodetest.Start(t, labnode.Options{Binary: r.path("/usr/bin/userns-shim")})
	wantVersion(t, n, older)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo))
	pid, ids := c.PID(t), pod.Range(t)

	r.write(t, "/etc/userns-shim/config.yaml", r.read(t, "/etc/userns-shim/config.yaml")+"# the operator's own\n")
	r.run(t, "dpkg -i "+r.put(t, newer.deb(t, thisArch)))
	if !strings.Contains(r.read(t, "/etc/userns-shim/config.yaml"), "# the operator's own") {
		t.Error("the upgrade took the operator's configuration away")
	}
	if got := c.Exec(t, "cat", "/proc/self/uid_map"); !strings.Contains(got, "65536") {
		t.Errorf("under the old daemon, exec prints %q", got)
	}
	wantVersion(t, n, older)
	restart(t, n)
	wantVersion(t, n, newer)
	if c.PID(t) != pid || pod.Range(t) != ids {
		t.Errorf("after the upgrade the container is process %d with ids from %d, and was %d from %d", c.PID(t), pod.Range(t), pid, ids)
	}
	if got := c.Exec(t, "cat", "/proc/self/uid_map"); !strings.Contains(got, "65536") {
		t.Errorf("under the new daemon, exec prints %q", got)
	}
	second := n.RunPod(t)
	second.Run(t, n.Image(t, labimage.Demo))

	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.run(t, "dpkg -r userns-shim")
	if r.exists("/usr/bin/userns-shim") {
		t.Error("the program is there after its removal")
	}
	if _, err := os.Stat(filepath.Join("/proc", itoa(pid))); err != nil {
		t.Errorf("the removal ended the container: %v", err)
	}
	r.run(t, "dpkg -i "+r.put(t, older.deb(t, thisArch)))
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, n, older)
	if c.PID(t) != pid || second.Status(t).GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Error("after the package was removed and installed, the older version does not have the pods")
	}
}

func restart(t *testing.T, n *nodetest.Node) {
	t.Helper()
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantVersion(t *testing.T, n *nodetest.Node, want version) {
	t.Helper()
	got, err := n.Runtime.Version(t.Context(), &runtimeapi.VersionRequest{})
	if err != nil || got.GetRuntimeVersion() != want.program {
		t.Errorf("CRI says version %s, %v; want %s", got.GetRuntimeVersion(), err, want.program)
	}
}

// TestDebRemoveAndPurge: a removal keeps configuration and state, a purge neither, unless pods live.
func TestDebRemoveAndPurge(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	install := "dpkg -i " + r.put(t, older.deb(t, thisArch)) + "; mkdir -p /var/lib/userns-shim /run/userns-shim; echo ledger >/var/lib/userns-shim/state.db; "
	const pin = "mkdir -p /run/userns-shim/sandboxes/pod; mount -t tmpfs none /run/userns-shim/sandboxes/pod; "

	if out := r.run(t, install+pin+"dpkg -r userns-shim"); !strings.Contains(out, "pods of this node run on") {
		t.Errorf("the removal under pods says %q", out)
	}
	if out := r.run(t, "dpkg -r userns-shim 2>&1 || true"); strings.Contains(out, "pods of this node run on") {
		t.Errorf("a removal without pods says %q", out)
	}
	if !r.exists("/var/lib/userns-shim/state.db") || !r.exists("/etc/userns-shim/config.yaml") || r.exists("/usr/bin/userns-shim") {
		t.Error("the removal did not keep state and configuration, or left the program")
	}
	if out := r.run(t, install+pin+"dpkg --purge userns-shim"); !strings.Contains(out, "/var/lib/userns-shim is kept") || !r.exists("/var/lib/userns-shim/state.db") {
		t.Errorf("a purge under pods removed the state, or did not say that it is kept: %q", out)
	}
	if out := r.run(t, install+"umount /proc; dpkg --purge userns-shim"); !strings.Contains(out, "/var/lib/userns-shim is kept") || !r.exists("/var/lib/userns-shim/state.db") {
		t.Errorf("a purge that cannot look for pods removed the state, or did not say that it is kept: %q", out)
	}
	out := r.run(t, install+"dpkg --purge userns-shim")
	for _, gone := range []string{"/var/lib/userns-shim", "/run/userns-shim", "/etc/userns-shim", "/etc/systemd/system/multi-user.target.wants/userns-shim.service"} {
		if r.exists(gone) {
			t.Errorf("%s is there after the purge: %s", gone, out)
		}
	}
	if linesOf(r.read(t, "/etc/subuid"), "kubelet") != kubeletIDs {
		t.Error("kubelet lost its ids, while files that belong to them may be left")
	}
}
