package leaks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"github.com/vishvananda/netlink"
)

// dumpTries is how often a list of interfaces is asked for that changes meanwhile.
const dumpTries = 10

// addLinks lists the interfaces of the node's network namespace. Without a bridge of its own the node has
// no pod network.
func (s Scope) addLinks(inv Inventory) error {
	if s.Bridge == "" {
		return nil
	}
	var links []netlink.Link
	err := s.Namespaces.Do(func() (err error) {
		for range dumpTries {
			if links, err = netlink.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		if name := link.Attrs().Name; name != "lo" && name != s.Bridge {
			inv.add("interface", "%s (%s)", name, link.Type())
		}
	}
	return nil
}

// ofOnePod matches rules that plugins make for one pod: they carry its address or a chain named by a hash.
// The plugins' shared chains stay on any node.
var ofOnePod = regexp.MustCompile(`/32\b|CNI-[0-9a-f]{24}|CNI-DN-[0-9a-f]+`)

func (s Scope) addFilterRules(ctx context.Context, inv Inventory) error {
	if s.Bridge == "" {
		return nil
	}
	out, err := s.Namespaces.Output(exec.CommandContext(ctx, "iptables-save"))
	if err != nil {
		return fmt.Errorf("list packet filter rules (Debian package iptables): %w", err)
	}
	for line := range bytes.Lines(out) {
		rule := strings.TrimSpace(string(line))
		if strings.HasPrefix(rule, "-A") && ofOnePod.MatchString(rule) {
			inv.add("packet filter rule", "%s", rule)
		}
	}
	return nil
}
