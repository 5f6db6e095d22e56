package e2epackage

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// configFile is the packages' only configuration file.
const configFile = "/etc/userns-shim/config.yaml"

// root is a small Debian in a directory.
type root string

// newRoot unpacks one for the test. It is in the lab's directory, for pods can run on what is installed in it.
func newRoot(t *testing.T) root {
	t.Helper()
	tarball := made(t, testkit.BinEnv, "bin", "package-root.tar")
	dir, err := os.MkdirTemp("", "usp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	run(t, "tar", "-xf", tarball, "-C", dir, "--exclude=./dev/*")
	run(t, "chmod", "0755", dir)
	// A chroot without devices has no null device, to which scripts write.
	run(t, "mknod", "-m", "0666", filepath.Join(dir, "dev/null"), "c", "1", "3")
	return root(dir)
}

func (r root) path(name string) string { return filepath.Join(string(r), name) }

// command runs a shell script inside, in PID and mount namespaces of its own with /proc.
func (r root) command(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--root="+string(r), "--mount-proc",
		"/bin/sh", "-euc", script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// run returns what the script printed, standard error included.
func (r root) run(t *testing.T, script string) string {
	t.Helper()
	out, err := r.try(t, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

func (r root) try(t *testing.T, script string) (string, error) {
	t.Helper()
	out, err := r.command(t.Context(), script).CombinedOutput()
	return strings.TrimSuffix(string(out), "\n"), err
}

// put copies a file into the root's /tmp and returns its path inside.
func (r root) put(t *testing.T, file string) string {
	t.Helper()
	name := filepath.Join("/tmp", filepath.Base(file))
	run(t, "cp", file, r.path(name))
	return name
}

func (r root) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(r.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (r root) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (r root) exists(name string) bool {
	_, err := os.Lstat(r.path(name))
	return err == nil
}
