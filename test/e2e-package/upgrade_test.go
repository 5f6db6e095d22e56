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

// packager installs and removes packages of one kind, and returns what the packages' scripts said.
type packager struct {
	install func(t *testing.T, r root, v version) string // also over another version
	remove  func(t *testing.T, r root) string
}

var (
	debs = packager{
		install: func(t *testing.T, r root, v version) string { return r.run(t, "dpkg -i "+r.put(t, v.deb(t, thisArch))) },
		remove:  func(t *testing.T, r root) string { return r.run(t, "dpkg -r userns-shim") },
	}
	rpms = packager{
		install: func(t *testing.T, r root, v version) string {
			return r.rpm(t, "", "--nodeps", "-U", "--oldpackage", v.rpm(t, thisArch))
		},
		remove: func(t *testing.T, r root) string { return r.rpm(t, "", "-e", "userns-shim") },
	}
)

func TestDebUpgradeWithPodsRunning(t *testing.T) {
	t.Parallel()
	upgradeWithPods(t, debs)
}

func TestRPMUpgradeWithPodsRunning(t *testing.T) {
	t.Parallel()
	upgradeWithPods(t, rpms)
}

// upgradeWithPods runs pods on the installed program, on a real containerd, and replaces and removes the
// package under them. What systemd would do to the service is done by hand here; the e2e-vm tier has a real one.
func upgradeWithPods(t *testing.T, p packager) {
	r := newRoot(t)
	p.install(t, r, older)
	n := nodetest.Start(t, labnode.Options{Binary: r.path("/usr/bin/userns-shim")})
	wantVersion(t, n, older)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo))
	pid, ids := c.PID(t), pod.Range(t)

	r.write(t, configFile, r.read(t, configFile)+"# the operator's own\n")
	p.install(t, r, newer)
	if !strings.Contains(r.read(t, configFile), "# the operator's own") {
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
	p.remove(t, r)
	if r.exists("/usr/bin/userns-shim") {
		t.Error("the program is there after its removal")
	}
	if _, err := os.Stat(filepath.Join("/proc", itoa(pid))); err != nil {
		t.Errorf("the removal ended the container: %v", err)
	}
	p.install(t, r, older)
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

func TestDebServiceOverUpgrades(t *testing.T) {
	t.Parallel()
	serviceOverUpgrades(t, debs, "start", "restart", "stop")
}

// TestRPMServiceOverUpgrades: rpm's distributions start no service at its installation.
func TestRPMServiceOverUpgrades(t *testing.T) {
	t.Parallel()
	serviceOverUpgrades(t, rpms, "", "try-restart", "disable --now")
}

// serviceOverUpgrades looks at what the packages' scripts ask systemd for. A configuration that the new version would not start with,
// such as one of an older version, leaves the old daemon running, and the scripts say why.
func serviceOverUpgrades(t *testing.T, p packager, start, again, stop string) {
	r := newRoot(t)
	const asked = "/tmp/asked"
	for _, program := range []string{"/usr/bin/systemctl", "/usr/bin/deb-systemd-invoke"} {
		r.write(t, program, "#!/bin/sh\necho $* >>"+asked+"\n")
	}
	r.run(t, "mkdir -p /run/systemd/system")
	want := func(what string, lines ...string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(r.read(t, asked)) {
			if strings.Contains(line, "start") || strings.Contains(line, "stop") || strings.Contains(line, "--now") {
				got = append(got, strings.TrimPrefix(strings.TrimSpace(line), "--no-reload "))
			}
		}
		if strings.Join(got, "\n") != strings.Join(lines, "\n") {
			t.Errorf("%s asks systemd for %q, want %q", what, got, lines)
		}
		r.write(t, asked, "")
	}
	const unit = " userns-shim.service"
	p.install(t, r, older)
	if start == "" {
		want("the installation")
	} else {
		want("the installation", start+unit)
	}
	p.install(t, r, newer)
	want("the upgrade", again+unit)

	whole := r.read(t, configFile)
	r.write(t, configFile, "rooot: /var/lib/userns-shim\n")
	if out := p.install(t, r, older); !strings.Contains(out, "do you mean root?") || !strings.Contains(out, "not restarted") {
		t.Errorf("an upgrade with a configuration of another version says %q", out)
	}
	want("an upgrade with a configuration of another version")

	r.run(t, "rm "+configFile)
	p.install(t, r, newer)
	want("an upgrade without a configuration", again+unit)
	r.write(t, configFile, whole)

	p.remove(t, r)
	want("the removal", stop+unit)
}
