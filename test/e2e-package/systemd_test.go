package e2epackage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestPackageUnderSystemd installs the .deb on a machine with systemd and containerd, and goes through a node's life with the
// unit as it is shipped: a pod, a restart while a container exits, an upgrade, containerd stopped and started, a crash,
// removal and purge. The first container has to run through all of it.
func TestPackageUnderSystemd(t *testing.T) {
	m := startMachine(t, withoutPlugin)
	if out := run(t, "dpkg", "-i", older.deb(t, thisArch)); strings.Contains(out, "kubelet-ids") {
		t.Errorf("the installation complains: %s", out)
	}
	if got := property(t, "ActiveState"); got != "active" {
		t.Fatalf("after the installation the service is %s:\n%s", got, run(t, "journalctl", "--no-pager", "-u", "userns-shim.service"))
	}
	m.wantVersion(t, older)
	t.Run("settings", checkSettings)
	p := m.runPod(t)
	volume := t.TempDir()
	stays := p.run(t, "stays", "sleep 1000000", volume)
	init := func(t *testing.T) string { return p.exec(t, stays, "cat", "/proc/1/stat") }
	lives := init(t)
	same := func(t *testing.T, when string) {
		t.Helper()
		if got := p.status(t, stays).State; got != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Fatalf("%s the container is %s", when, got)
		}
		// The process's number and its start.
		if got := init(t); slices.Compare(strings.Fields(got)[19:22], strings.Fields(lives)[19:22]) != 0 {
			t.Errorf("%s the container's process is another:\n%s\n%s", when, got, lives)
		}
	}
	t.Run("restart", func(t *testing.T) { checkRestart(t, p, volume); same(t, "after a restart") })
	t.Run("upgrade", func(t *testing.T) {
		run(t, "dpkg", "-i", newer.deb(t, thisArch))
		m.wantVersion(t, newer)
		same(t, "after an upgrade")
	})
	t.Run("containerd stopped and started", func(t *testing.T) {
		run(t, "systemctl", "stop", "containerd.service")
		run(t, "systemctl", "start", "containerd.service")
		m.wantVersion(t, newer)
		// Its client dials again only after a pause, and kubelet asks again.
		eventually(t, "an exec works again", func() bool {
			_, err := m.runtime.ExecSync(limited(t), &runtimeapi.ExecSyncRequest{ContainerId: stays, Cmd: []string{"true"}, Timeout: 60})
			return err == nil
		})
		same(t, "after a stop and start of containerd")
	})
	t.Run("crash", func(t *testing.T) {
		main := property(t, "MainPID")
		run(t, "kill", "-9", main)
		eventually(t, "systemd has started it again", func() bool {
			return property(t, "ActiveState") == "active" && property(t, "MainPID") != main
		})
		same(t, "after a crash")
	})
	t.Run("removal", func(t *testing.T) { checkRemoval(t, p); same(t, "after a removal, a purge and an installation") })
	t.Run("purge", func(t *testing.T) { checkPurge(t, p) })
}

// checkSettings holds what the unit's lines come to in the process.
func checkSettings(t *testing.T) {
	proc := filepath.Join("/proc", property(t, "MainPID"))
	data, err := os.ReadFile(proc + "/limits")
	if err != nil {
		t.Fatal(err)
	}
	limits := strings.Join(strings.Fields(string(data)), " ")
	for _, want := range []string{
		"Max locked memory unlimited unlimited", "Max pending signals unlimited unlimited",
		"Max msgqueue size unlimited unlimited", "Max open files 1048576 1048576", "Max processes unlimited unlimited",
	} {
		if !strings.Contains(limits, want) {
			t.Errorf("no %q in %s", want, data)
		}
	}
	if score, err := os.ReadFile(proc + "/oom_score_adj"); err != nil || string(score) != "-999\n" {
		t.Errorf("oom_score_adj is %q, %v", score, err)
	}
	for _, ns := range []string{"mnt", "net", "ipc", "uts", "pid", "user", "cgroup"} {
		own, err := os.Readlink(proc + "/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if host, err := os.Readlink("/proc/1/ns/" + ns); err != nil || own != host {
			t.Errorf("the service is in %s, and the host in %s, %v", own, host, err)
		}
	}
	if got := run(t, "systemd-analyze", "verify", "--man=no", "userns-shim.service"); got != "" {
		t.Errorf("systemd finds in the unit: %s", got)
	}
	if got := property(t, "TasksMax"); got != "infinity" {
		t.Errorf("TasksMax is %s", got)
	}
}

// checkRestart restarts the service and has a container write and exit between its end and its start. What it wrote is then
// in its pipes alone, which systemd keeps open.
func checkRestart(t *testing.T, p *pod, volume string) {
	const lines = 4000
	if err := os.Chmod(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	id := p.run(t, "exits", fmt.Sprintf("while [ ! -e /vol/go ]; do sleep 0.1; done; seq %d; exit 5", lines), volume)
	if got := property(t, "NFileDescriptorStore"); got != "4" {
		t.Errorf("systemd keeps %s descriptors of two containers, want 4", got)
	}
	// Its shim's child is gone when the container has exited.
	between := fmt.Sprintf("[Service]\nExecStartPre=/bin/sh -c 'touch %s/go; while pgrep -f \"[/]vol/go\" >/dev/null; do sleep 0.1; done; touch %s/exited'\n", volume, volume)
	const dropIn = "/etc/systemd/system/userns-shim.service.d/test.conf"
	writeFile(t, dropIn, between)
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "restart", "userns-shim.service")
	if _, err := os.Stat(filepath.Join(volume, "exited")); err != nil {
		t.Errorf("the container did not exit while the service was down: %v", err)
	}
	if err := os.Remove(dropIn); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
	eventually(t, "the container's exit is known", func() bool {
		return p.status(t, id).State == runtimeapi.ContainerState_CONTAINER_EXITED
	})
	if code := p.status(t, id).ExitCode; code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	log := p.log(t, "exits")
	if len(log) != lines || !strings.HasSuffix(log[len(log)-1], fmt.Sprint(" ", lines)) {
		t.Errorf("the log has %d lines, want %d; the last is %q", len(log), lines, log[len(log)-1])
	}
	eventually(t, "systemd keeps the other container's alone", func() bool { return property(t, "NFileDescriptorStore") == "2" })
}

// checkRemoval removes and purges the package while the pod lives, and installs it again.
func checkRemoval(t *testing.T, p *pod) {
	if out := run(t, "dpkg", "-r", "userns-shim"); !strings.Contains(out, "pods of this node run on") {
		t.Errorf("the removal says %q", out)
	}
	if out := run(t, "dpkg", "--purge", "userns-shim"); !strings.Contains(out, "/var/lib/userns-shim is kept") {
		t.Errorf("the purge says %q", out)
	}
	run(t, "dpkg", "-i", newer.deb(t, thisArch))
	p.wantVersion(t, newer)
}

// checkPurge removes the pod, and then the package with everything.
func checkPurge(t *testing.T, p *pod) {
	if _, err := p.runtime.StopPodSandbox(limited(t), &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.runtime.RemovePodSandbox(limited(t), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Fatal(err)
	}
	out := run(t, "dpkg", "--purge", "userns-shim")
	for _, gone := range []string{"/var/lib/userns-shim", "/run/userns-shim", "/etc/userns-shim", "/usr/bin/userns-shim"} {
		if _, err := os.Lstat(gone); err == nil {
			t.Errorf("%s is there after the purge: %s", gone, out)
		}
	}
}
