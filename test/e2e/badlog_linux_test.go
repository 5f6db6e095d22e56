package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// The log directory is kubelet's, but a pod with a hostPath volume over it can put there what it likes. These
// tests are that pod: nothing may be written through what they put there.

// outside is a directory with a file that no log may reach.
func outside(t *testing.T) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("outside the log directory there are %v, %v; want the one file", entries, err)
		}
		if text, err := os.ReadFile(file); string(text) != "secret\n" {
			t.Errorf("the file outside the log directory has %q, %v", text, err)
		}
	})
	return dir, file
}

// TestLogPathsStayInTheLogDirectory starts containers whose log paths lead elsewhere by what is on the disk.
func TestLogPathsStayInTheLogDirectory(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	logs := pod.Request.Config.LogDirectory
	dir, file := outside(t)
	cases := []struct {
		name, path string
		place      func(at string) error // puts something at the log's path, or at its directory
	}{
		{"symlink to a file outside", "file.log", func(at string) error { return os.Symlink(file, at) }},
		{"symlink to nothing outside", "none.log", func(at string) error { return os.Symlink(filepath.Join(dir, "none"), at) }},
		{"symlink that climbs", "climb.log", func(at string) error { return os.Symlink("../../../../../../../../.."+file, at) }},
		{"FIFO", "fifo.log", func(at string) error { return unix.Mkfifo(at, 0o600) }},
		{"directory", "dir.log", func(at string) error { return os.Mkdir(at, 0o700) }},
		{"device", "device.log", func(at string) error { return unix.Mknod(at, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if err := c.place(filepath.Join(logs, c.path)); err != nil {
				t.Fatal(err)
			}
			ctr := pod.Create(t, image, nodetest.Command("echo", "escaped"), func(cfg *runtimeapi.ContainerConfig) { cfg.LogPath = c.path })
			wantError(t, ctr.TryStart(t.Context()), codes.FailedPrecondition, c.path, "not a regular file")
			if st := ctr.Status(t); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.Reason != "StartError" {
				t.Errorf("the container is %s with the reason %q, want exited and StartError", st.State, st.Reason)
			}
		})
	}
	t.Run("directory that is a symlink outside", func(t *testing.T) {
		if err := os.Symlink(dir, filepath.Join(logs, "link")); err != nil {
			t.Fatal(err)
		}
		ctr := pod.Create(t, image, nodetest.Command("echo", "escaped"), func(cfg *runtimeapi.ContainerConfig) { cfg.LogPath = "link/x.log" })
		wantError(t, ctr.TryStart(t.Context()), codes.FailedPrecondition, "link")
	})
}

// TestReopenStaysInTheLogDirectory rotates a log as kubelet does, with a symlink in the place of the new file.
func TestReopenStaysInTheLogDirectory(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	_, file := outside(t)
	ctr := pod.Run(t, image, nodetest.Shell("while true; do echo line; sleep 0.05; done"))
	log := ctr.LogPath()
	eventually(t, "the first line of the log", func() bool { return ctr.Log(t).Stdout() != "" })
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, log); err != nil {
		t.Fatal(err)
	}
	wantError(t, tryReopen(t.Context(), n, ctr.ID), codes.FailedPrecondition, ctr.Config.LogPath, "not a regular file")
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	reopen(t, n, ctr)
	ctr.Stop(t, 0)
	if text, err := os.ReadFile(log + ".1"); err != nil || !strings.Contains(string(text), "stdout F line") {
		t.Errorf("the log before the rotation has %q, %v", text, err)
	}
}
