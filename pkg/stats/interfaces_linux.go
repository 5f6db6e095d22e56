package stats

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Interface is what one network interface received and transmitted.
type Interface struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// dumpTries is how often the list is asked for again when interfaces came or went meanwhile.
const dumpTries = 3

// Interfaces returns those of the network namespace that is pinned at path, without loopback, in
// the order of their making. The socket that asks is opened there for this one answer: kept, it would hold the
// namespace after its pod.
func Interfaces(path string) ([]Interface, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket in network namespace %s: %w", path, err)
	}
	defer handle.Close()
	var links []netlink.Link
	for range dumpTries {
		if links, err = handle.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list interfaces of network namespace %s: %w", path, err)
	}
	return interfaces(links), nil
}

func interfaces(links []netlink.Link) []Interface {
	slices.SortFunc(links, func(a, b netlink.Link) int { return cmp.Compare(a.Attrs().Index, b.Attrs().Index) })
	var out []Interface
	for _, link := range links {
		attrs := link.Attrs()
		if attrs.Flags&net.FlagLoopback != 0 || attrs.Statistics == nil {
			continue
		}
		s := attrs.Statistics
		out = append(out, Interface{
			Name:      attrs.Name,
			RxBytes:   s.RxBytes,
			RxPackets: s.RxPackets,
			RxErrors:  s.RxErrors,
			RxDropped: s.RxDropped,
			TxBytes:   s.TxBytes,
			TxPackets: s.TxPackets,
			TxErrors:  s.TxErrors,
			TxDropped: s.TxDropped,
		})
	}
	return out
}
