package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// fillInotify makes as many inotify instances as it is told. Once it has them it says so on stderr and holds
// them until SIGTERM, so that another pod can be asked meanwhile; when it gets no more it ends.
func fillInotify(want string) (result, error) {
	limit, err := strconv.Atoi(want)
	if err != nil {
		return result{}, usageError(err.Error())
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	res := result{}
	for ; res.Count < limit; res.Count++ {
		if _, err := unix.InotifyInit1(unix.IN_CLOEXEC); err != nil {
			return res, os.NewSyscallError("inotify_init1", err)
		}
	}
	if _, err := fmt.Fprintf(os.Stderr, "holding %d\n", res.Count); err != nil {
		return res, err
	}
	<-stop
	return res, nil
}

// addLink adds a pair of veth devices, the one kind of link that every kernel of a node has.
func addLink(name string) (result, error) {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(link); err != nil {
		return result{}, fmt.Errorf("add link: %w", err)
	}
	found, err := netlink.LinkByName(name)
	if err != nil {
		return result{}, fmt.Errorf("find link: %w", err)
	}
	return result{Text: found.Attrs().Name + " " + found.Type()}, nil
}
