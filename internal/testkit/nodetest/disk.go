package nodetest

import (
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"
)

// SnapshotsDir is where containerd keeps image layers and containers' writable ones.
func (n *Node) SnapshotsDir() string {
	return filepath.Join(n.Containerd.Root, "io.containerd.snapshotter.v1.overlayfs", "snapshots")
}

// DiskUse sums up a directory as du(1) does.
func DiskUse(t testing.TB, dir string) (bytes, inodes uint64) {
	t.Helper()
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if !seen[st.Ino] {
			seen[st.Ino] = true
			bytes += uint64(st.Blocks) * 512
			inodes++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes, inodes
}
