package e2epackage

import (
	"strings"
	"testing"
)

// allPages compares the manual pages with what the installed program writes, all but their date.
const allPages = `mkdir /tmp/pages; cd /tmp/pages; SOURCE_DATE_EPOCH=0 userns-shim man .
for page in *; do
	sed '/^\.TH/d' $page >/tmp/page; zcat /usr/share/man/man8/$page.gz | sed '/^\.TH/d' | cmp - /tmp/page
done; [ $(ls /usr/share/man/man8/userns-shim* | wc -l) -eq $(ls | wc -l) ]`

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
		"cmp " + configFile + " - <<END\n$(userns-shim config default)\nEND": "",
		"dpkg --verify userns-shim":                                       "",
		"getsubids kubelet":                                               "0: kubelet 2013265920 100532224",
		"getsubids -g kubelet":                                            "0: kubelet 2013265920 100532224",
		"getent passwd kubelet | cut -d: -f6-":                            "/nonexistent:/usr/sbin/nologin",
		"systemctl is-enabled userns-shim.service":                        "enabled",
		"bash -nc '. /usr/share/bash-completion/completions/userns-shim'": "",
		"userns-shim completion bash | cmp - /usr/share/bash-completion/completions/userns-shim":    "",
		"userns-shim completion fish | cmp - /usr/share/fish/vendor_completions.d/userns-shim.fish": "",
		"userns-shim completion zsh | cmp - /usr/share/zsh/vendor-completions/_userns-shim":         "",
		allPages: "",
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
	if !r.exists("/var/lib/userns-shim/state.db") || !r.exists(configFile) || r.exists("/usr/bin/userns-shim") {
		t.Error("the removal did not keep state and configuration, or left the program")
	}
	if out := r.run(t, install+pin+"dpkg --purge userns-shim"); !strings.Contains(out, "/var/lib/userns-shim is kept") || !r.exists("/var/lib/userns-shim/state.db") {
		t.Errorf("a purge under pods removed the state, or did not say that it is kept: %q", out)
	}
	if out := r.run(t, install+"umount /proc; dpkg --purge userns-shim"); !strings.Contains(out, "/var/lib/userns-shim is kept") || !r.exists("/var/lib/userns-shim/state.db") {
		t.Errorf("a purge that cannot look for pods removed the state, or did not say that it is kept: %q", out)
	}
	const elsewhere = "touch /run/pin; mount --bind /proc/self/ns/user /run/pin; "
	if out := r.run(t, install+elsewhere+"dpkg --purge userns-shim"); !strings.Contains(out, "/var/lib/userns-shim is kept") || !r.exists("/var/lib/userns-shim/state.db") {
		t.Errorf("a purge under pods of another state directory removed the state, or did not say that it is kept: %q", out)
	}
	out := r.run(t, install+"dpkg --purge userns-shim")
	if !strings.Contains(out, "removing /var/lib/userns-shim, with the reservations") {
		t.Errorf("the purge does not say what it removes: %q", out)
	}
	for _, gone := range []string{"/var/lib/userns-shim", "/run/userns-shim", "/etc/userns-shim", "/etc/systemd/system/multi-user.target.wants/userns-shim.service"} {
		if r.exists(gone) {
			t.Errorf("%s is there after the purge: %s", gone, out)
		}
	}
	if linesOf(r.read(t, "/etc/subuid"), "kubelet") != kubeletIDs {
		t.Error("kubelet lost its ids, while files that belong to them may be left")
	}
}
