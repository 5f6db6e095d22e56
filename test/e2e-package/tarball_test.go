package e2epackage

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTarballInstall types what README.md says for a node without a package manager's help, in a Debian.
func TestTarballInstall(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	packages := "/root/_output/packages"
	r.run(t, "mkdir -p "+packages)
	run(t, "cp", older.tarball(t, thisArch), r.path(packages))
	out := r.run(t, "export SYSTEMD_OFFLINE=1; cd /root\n"+tarballCommands(t))
	if strings.Contains(out, "kubelet-ids") {
		t.Errorf("the installation complains: %s", out)
	}
	for script, want := range map[string]string{
		"hash -r; /usr/local/bin/userns-shim version":                       older.program,
		"/usr/local/bin/userns-shim config validate --strict " + configFile: configFile + ": valid",
		"getsubids kubelet":                                                      "0: kubelet 2013265920 100532224",
		"systemctl is-enabled userns-shim.service":                               "enabled",
		"systemd-analyze verify --man=no userns-shim.service":                    "",
		"find /usr/local -not -user root; find /usr/local -perm /go=w ! -type l": "",
	} {
		if got := r.run(t, script); got != want {
			t.Errorf("%s prints %q, want %q", script, got, want)
		}
	}
	unit, err := os.Readlink(r.path("/etc/systemd/system/multi-user.target.wants/userns-shim.service"))
	if err != nil || unit != "/usr/local/lib/systemd/system/userns-shim.service" {
		t.Errorf("the unit that is enabled is %s, %v", unit, err)
	}
}

// tarballCommands are the page's lines from the one that unpacks the tarball on, for this architecture.
func tarballCommands(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("(?s)```sh\n(tar -C /usr/local .*?)```").FindSubmatch(page)
	if commands == nil {
		t.Fatal("README.md has no block of commands that begins with tar -C /usr/local")
	}
	// A root has no systemd that could start something.
	return strings.NewReplacer("linux-amd64", "linux-"+thisArch, "enable --now", "enable").Replace(string(commands[1]))
}
