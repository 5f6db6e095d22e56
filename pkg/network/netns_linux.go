package network

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// loopbackUp brings up lo in the network namespace at path. The kernel then gives it 127.0.0.1
// and ::1. It takes no plugin: a request over netlink is some tens of microseconds, a process
// milliseconds.
func loopbackUp(path string) error {
	if !isNetNS(path) {
		return fmt.Errorf("%w: %q is no network namespace", ErrInvalid, path)
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink socket in network namespace %s: %w", path, err)
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback of network namespace %s: %w", path, err)
	}
	if err := handle.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up loopback of network namespace %s: %w", path, err)
	}
	return nil
}

// isNetNS reports whether a namespace is mounted at path. After a crash there can be a plain file.
func isNetNS(path string) bool {
	var st unix.Statfs_t
	return path != "" && unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}
