package doctor

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/userns-shim/userns-shim/internal/kernel"
)

// kubeletRoot is where kubelet keeps volumes, unless it is told otherwise.
const kubeletRoot = "/var/lib/kubelet"

// maxVolumes bounds how many filesystems below kubelet's directory are tried.
const maxVolumes = 64

func (x *exam) checkFilesystems(ctx context.Context) {
	seen := map[string]bool{}
	for _, h := range x.Node.Handlers {
		if x.engine != nil || h.Never || seen[h.Snapshotter] {
			continue
		}
		seen[h.Snapshotter] = true
		x.checkSnapshotter(ctx, h.Snapshotter)
	}
	for _, path := range append([]string{x.Node.Root}, x.volumes()...) {
		err := x.Ports.Kernel.IDMapped(path)
		switch {
		case err == nil:
			x.ok("filesystem", "%s can be mounted idmapped", path)
		case errors.Is(err, kernel.ErrNotSupported):
			x.add("filesystem", Warning, "mount it with a filesystem that can, such as ext4, xfs or btrfs, or keep pods with hostUsers: false off its volumes", "volumes on %s cannot be mounted idmapped: %v", path, err)
		case absent(err):
			x.add("filesystem", Info, "", "%s is not there yet", path)
		default:
			x.add("filesystem", Unknown, "run doctor as root on the node itself", "%s: %v", path, err)
		}
	}
}

func (x *exam) checkSnapshotter(ctx context.Context, name string) {
	root, err := x.Ports.Engine.SnapshotterRoot(ctx, name)
	if err != nil {
		return // checkPlugins has told
	}
	ask := x.Ports.Kernel.IDMapped
	if name == "overlayfs" {
		ask = x.Ports.Kernel.OverlayLayersIDMapped
	}
	if err := ask(root); err != nil {
		x.add("filesystem", Error, "put containerd's root on ext4, xfs or btrfs, and boot Linux 5.19 or newer", "images of the snapshotter %s cannot be mounted idmapped: %v", name, err)
		return
	}
	x.ok("filesystem", "images of the snapshotter %s in %s can be mounted idmapped", name, root)
}

// volumes are kubelet's directory and the mounts below it, one for each filesystem.
func (x *exam) volumes() []string {
	dir := x.kubelet.dir()
	paths := []string{dir}
	f, err := x.open("/proc/self/mountinfo")
	if err != nil {
		return paths
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		return paths
	}
	seen := map[[2]int]bool{}
	for _, m := range mounts {
		device := [2]int{m.Major, m.Minor}
		if !strings.HasPrefix(m.Mountpoint, filepath.Clean(dir)+"/") || seen[device] || m.FSType == "tmpfs" {
			continue // the kernel check has tmpfs
		}
		seen[device] = true
		if paths = append(paths, m.Mountpoint); len(paths) == maxVolumes {
			break
		}
	}
	return paths
}
