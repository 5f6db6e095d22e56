package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	gocni "github.com/containerd/go-cni"
)

// Interface is a network device that belongs to a pod's connection. Those outside the pod have
// no Sandbox.
type Interface struct {
	Name    string       `json:"name"`
	MAC     string       `json:"mac,omitempty"`
	Sandbox string       `json:"sandbox,omitempty"` // the network namespace that it is in
	IPs     []netip.Addr `json:"ips,omitempty"`
}

// Result is how a pod was connected.
type Result struct {
	// IPs are the addresses of the pod's first interface, the preferred first. There is at
	// least one.
	IPs []netip.Addr `json:"ips"`
	// Interfaces are in the order of their names.
	Interfaces []Interface `json:"interfaces,omitempty"`
	// Raw is the list of the plugins' results as CNI specifies them.
	Raw json.RawMessage `json:"raw,omitempty"`
}

func newResult(r *gocni.Result, prefer IPFamily) (Result, error) {
	raw, err := json.Marshal(r.Raw())
	if err != nil {
		return Result{}, fmt.Errorf("encode result: %w", err)
	}
	result := Result{Raw: raw}
	for _, name := range slices.Sorted(maps.Keys(r.Interfaces)) {
		config := r.Interfaces[name]
		i := Interface{Name: name, MAC: config.Mac, Sandbox: config.Sandbox}
		for _, ip := range config.IPConfigs {
			addr, ok := netip.AddrFromSlice(ip.IP)
			if !ok {
				return Result{}, fmt.Errorf("interface %s has the address %q", name, ip.IP)
			}
			i.IPs = append(i.IPs, addr.Unmap())
		}
		result.Interfaces = append(result.Interfaces, i)
		if name == ifPrefix+"0" {
			result.IPs = preferred(i.IPs, prefer)
		}
	}
	if len(result.IPs) == 0 {
		return Result{}, errors.New("no address for " + ifPrefix + "0")
	}
	return result, nil
}

// preferred moves the first address of the preferred family to the front.
func preferred(ips []netip.Addr, prefer IPFamily) []netip.Addr {
	if prefer == FamilyCNI {
		return ips
	}
	first := slices.IndexFunc(ips, func(ip netip.Addr) bool { return ip.Is4() == (prefer == FamilyIPv4) })
	if first <= 0 {
		return ips
	}
	return slices.Concat(ips[first:first+1], ips[:first], ips[first+1:])
}
