package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// onNode runs a program in the node's mount namespace.
func onNode(t *testing.T, n *nodetest.Node, argv ...string) {
	t.Helper()
	if out, err := n.World.Output(exec.Command(argv[0], argv[1:]...)); err != nil {
		t.Fatalf("%q: %v: %s", argv, err, out)
	}
}

// mountOn mounts on a directory of the node, with the arguments of mount(8), until the test ends.
func mountOn(t *testing.T, n *nodetest.Node, dir string, args ...string) {
	t.Helper()
	onNode(t, n, append(append([]string{"mount"}, args...), dir)...)
	t.Cleanup(func() {
		if out, err := n.World.Output(exec.Command("umount", "-R", dir)); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
}

// inNode does something in the node's mount namespace.
func inNode(t *testing.T, n *nodetest.Node, f func() error) {
	t.Helper()
	if err := n.World.Do(f); err != nil {
		t.Fatal(err)
	}
}

// onNodeOutput runs a program in the node's mount namespace and returns what it prints.
func onNodeOutput(t *testing.T, n *nodetest.Node, argv ...string) string {
	t.Helper()
	out, err := n.World.Output(exec.Command(argv[0], argv[1:]...))
	if err != nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return strings.TrimSpace(string(out))
}

// mountFilesystem mounts an ext4 filesystem of its own on a directory of the node.
func mountFilesystem(t *testing.T, n *nodetest.Node, dir, size string) {
	t.Helper()
	image := filepath.Join(volume(t, n), "disk")
	for _, cmd := range [][]string{{"truncate", "-s", size, image}, {"mkfs.ext4", "-q", image}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", cmd, err, out)
		}
	}
	mountOn(t, n, dir, "-o", "loop", image)
}
