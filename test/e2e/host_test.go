package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// overflow is what the kernel shows for an id that is not mapped.
const overflow = 65534

// owner is a file's owner as the host sees it.
type owner struct{ UID, GID uint32 }

func lstat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

// exists says whether the host has a file, or a link.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func ownerOf(t *testing.T, path string) owner {
	t.Helper()
	st := lstat(t, path)
	return owner{UID: st.Uid, GID: st.Gid}
}

// volume makes a directory on the host that a container may mount, with a way to it that is open to all.
func volume(t *testing.T, n *nodetest.Node) string {
	t.Helper()
	dir, err := os.MkdirTemp(n.Dir, "vol-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	// Through Chmod because of the umask.
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// write makes a file on the host with an owner.
func write(t *testing.T, path, content string, uid, gid int) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
}

// snapshotsDir is where the overlayfs snapshotter keeps its layers.
func snapshotsDir(n *nodetest.Node) string { return n.SnapshotsDir() }

// layersWith returns the paths on disk of a file in all layers that have it. Containerd removes those of earlier pods, which
// may have changed it, some time later.
func layersWith(t *testing.T, n *nodetest.Node, name string) []string {
	t.Helper()
	collectGarbage(t, n)
	found, err := filepath.Glob(filepath.Join(snapshotsDir(n), "*", "fs", name))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatalf("no layer on disk has %s", name)
	}
	return found
}

// fileState is what copying, chowning or writing a file would change.
type fileState struct {
	Inode    uint64
	Owner    owner
	Mode     uint32
	Size     int64
	Blocks   int64
	Changed  syscall.Timespec
	Modified syscall.Timespec
}

// treeState reads the state of every file below dir.
func treeState(t *testing.T, dir string) map[string]fileState {
	t.Helper()
	tree := map[string]fileState{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := lstat(t, path)
		tree[path] = fileState{
			Inode: st.Ino, Owner: owner{UID: st.Uid, GID: st.Gid}, Mode: st.Mode,
			Size: st.Size, Blocks: st.Blocks, Changed: st.Ctim, Modified: st.Mtim,
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// processes lists those for which want holds.
func processes(t *testing.T, want func(leaks.Process) bool) []leaks.Process {
	t.Helper()
	all, err := leaks.Processes()
	if err != nil {
		t.Fatal(err)
	}
	var found []leaks.Process
	for _, p := range all {
		if !p.Zombie && want(p) {
			found = append(found, p)
		}
	}
	return found
}

// hostNamespace is the namespace of a kind ("net", "ipc") that the node itself is in.
func hostNamespace(t *testing.T, n *nodetest.Node, kind string) string {
	t.Helper()
	link, err := os.Readlink(filepath.Join(n.World.ProcDir(), "ns", kind))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// fields joins the words of a text with single spaces.
func fields(text string) string { return strings.Join(strings.Fields(text), " ") }

// lines splits a text into its lines, none for the empty text.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// writeBox puts the box into a directory of the host, under the names of some of its applets.
func writeBox(t *testing.T, n *nodetest.Node, dir string, applets ...string) {
	t.Helper()
	for _, name := range applets {
		if err := os.WriteFile(filepath.Join(dir, name), n.Box().Program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
