package e2epackage

import (
	"strings"
	"testing"
)

// rpm runs rpm on a root, whose own package manager it is not: nothing is known of what is installed, so
// dependencies are TestRPMContents' subject. The root has /proc, and what the script setup makes in it, with $ROOT as its path.
func (r root) rpm(t *testing.T, setup string, args ...string) string {
	t.Helper()
	script := "ROOT=" + string(r) + "; mount -t proc proc $ROOT/proc; " + setup + `
exec rpm --root $ROOT --dbpath /var/lib/rpm "$@"`
	return run(t, "unshare", append([]string{"--mount", "sh", "-euc", script, "rpm"}, args...)...)
}

func TestRPMInstallUpgradeErase(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	if out := r.rpm(t, "", "--nodeps", "-i", older.rpm(t, thisArch)); strings.Contains(out, "kubelet") {
		t.Errorf("the installation complains: %s", out)
	}
	if got := r.run(t, "userns-shim version; getsubids kubelet"); got != older.program+"\n0: kubelet 2013265920 100532224" {
		t.Errorf("after the installation: %s", got)
	}
	if got := r.rpm(t, "", "--nodeps", "-V", "userns-shim"); got != "" {
		t.Errorf("rpm finds changed: %s", got)
	}
	if got := r.run(t, "systemd-analyze verify --man=no userns-shim.service"); got != "" {
		t.Errorf("the unit is not clean: %s", got)
	}
	r.run(t, "systemctl enable userns-shim.service")
	r.write(t, configFile, r.read(t, configFile)+"# the operator's own\n")

	r.rpm(t, "", "--nodeps", "-U", newer.rpm(t, thisArch))
	if got := r.run(t, "userns-shim version; systemctl is-enabled userns-shim"); got != newer.program+"\nenabled" {
		t.Errorf("after the upgrade: %s", got)
	}
	if !strings.Contains(r.read(t, configFile), "# the operator's own") {
		t.Error("the upgrade took the operator's configuration away")
	}

	r.run(t, "mkdir -p /var/lib/userns-shim; echo ledger >/var/lib/userns-shim/state.db")
	const pin = "mkdir -p $ROOT/run/userns-shim/sandboxes/pod; mount -t tmpfs none $ROOT/run/userns-shim/sandboxes/pod; "
	if out := r.rpm(t, pin, "-e", "userns-shim"); !strings.Contains(out, "pods of this node run on") {
		t.Errorf("the erasure under pods says %q", out)
	}
	for _, name := range []string{
		"/usr/bin/userns-shim", "/usr/lib/systemd/system/userns-shim.service", "/usr/share/man/man8/userns-shim.8.gz",
		"/etc/systemd/system/multi-user.target.wants/userns-shim.service",
		"/usr/libexec/userns-shim", "/usr/share/doc/userns-shim", "/usr/share/licenses/userns-shim",
	} {
		if r.exists(name) {
			t.Errorf("the erasure leaves %s", name)
		}
	}
	for _, name := range []string{configFile + ".rpmsave", "/var/lib/userns-shim/state.db"} {
		if !r.exists(name) {
			t.Errorf("the erasure takes %s away", name)
		}
	}
}
