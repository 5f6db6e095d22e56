package labnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Reboot takes everything from a node that runs that a power failure takes: processes, mounts, namespaces, cgroups, interfaces, packet filter
// rules, and what is on file systems in memory. Then it starts the daemons again. What the kernel keeps outside of the node's own namespaces stays.
func (n *Node) Reboot(ctx context.Context) error {
	errs := []error{n.Daemon.Kill9(), n.Containerd.Kill9()}
	if n.kubelet != nil {
		errs = append(errs, n.kubelet.Kill9())
	}
	errs = append(errs, killMarked(ctx, n.Name), n.World.Do(n.forget), n.flushFilter(ctx), RemoveCgroups(n.Name))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cut the power of lab node %s: %w", n.Name, err)
	}
	if err := n.boot(ctx); err != nil {
		return fmt.Errorf("boot lab node %s: %w", n.Name, err)
	}
	return nil
}

func (n *Node) boot(ctx context.Context) error {
	if err := n.Containerd.Start(ctx); err != nil {
		return err
	}
	if err := n.Daemon.Start(ctx); err != nil || n.kubelet == nil {
		return err
	}
	if err := makeCgroups(n.Name); err != nil {
		return err
	}
	return n.kubelet.Start(ctx)
}

// forget runs in the world, when nothing of the node runs any more.
func (n *Node) forget() error {
	volatile := []string{n.Containerd.State, n.Containerd.shimSockets(), n.Daemon.State}
	for _, dir := range hidden {
		if strings.HasPrefix(dir, "/run/") {
			volatile = append(volatile, dir)
		}
	}
	if err := unmountBelow(append([]string{n.Dir}, volatile...)); err != nil {
		return err
	}
	var errs []error
	for _, dir := range volatile {
		errs = append(errs, clearDir(dir))
	}
	if link, err := netlink.LinkByName(bridgeName); err == nil {
		errs = append(errs, netlink.LinkDel(link))
	}
	return errors.Join(errs...)
}

// flushFilter removes the rules of CNI plugins. Their results are on disk, but without a pod's interface not all plugins remove all.
func (n *Node) flushFilter(ctx context.Context) error {
	for _, table := range []string{"filter", "nat"} {
		for _, what := range []string{"--flush", "--delete-chain"} {
			if _, err := n.World.Output(exec.CommandContext(ctx, "iptables", "--wait", "--table", table, what)); err != nil {
				return fmt.Errorf("flush packet filter: %w", err)
			}
		}
	}
	return nil
}

// unmountBelow unmounts what this thread sees mounted below the directories, the newest first.
func unmountBelow(dirs []string) error {
	table, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return fmt.Errorf("open mount table: %w", err)
	}
	defer table.Close()
	mounts, err := mountinfo.GetMountsFromReader(table, func(m *mountinfo.Info) (skip, stop bool) {
		return !slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(m.Mountpoint, dir+"/") }), false
	})
	if err != nil {
		return fmt.Errorf("read mount table: %w", err)
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) { // gone with its parent
			return fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
		}
	}
	return nil
}

// clearDir removes what is in a directory, in which nothing is mounted.
func clearDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read directory: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		errs = append(errs, RemoveDir(filepath.Join(dir, entry.Name())))
	}
	return errors.Join(errs...)
}
