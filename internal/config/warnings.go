package config

import (
	"errors"
	"net"
	"net/netip"
)

// The ids that no other allocator on Linux uses: above those of shadow, SSSD, systemd-nspawn, Incus and OpenShift,
// and below systemd's foreign ids.
const (
	firstQuietID = 2013265920
	lastQuietID  = 2147352575
)

// What idpool draws from where the file names no extents.
const (
	firstOwnID = 2113798144
	ownIDs     = 33554432
)

// Warnings joins what is allowed and rarely meant, each a FieldError.
func (c Config) Warnings() error {
	var errs []error
	warn := func(when bool, field, format string, args ...any) {
		if when {
			errs = append(errs, problem(field, format, args...))
		}
	}
	warn(c.IDPool.Claims == ClaimsPermissive, "idPool.claims",
		"is permissive: pods can get host ids that others have, those of the host included; it is for conformance suites")
	warn(c.IDPool.Quarantine == 0, "idPool.quarantine",
		"is 0s: the ids of a pod that has ended go to the next as soon as nothing of it is seen on the node")
	warn(c.RestoreCheckpointImages, "restoreCheckpointImages",
		"is true: whoever may name an image in a pod is trusted as root of the node is")
	warn(!onLoopback(c.MetricsListen), "metricsListen", "is %q: whoever reaches this address reads the metrics, without a password", c.MetricsListen)
	warn(!onLoopback(c.Streaming.Listen), "streaming.listen",
		"is %q: what is typed into exec and attach crosses the network without TLS; kubelet needs loopback alone", c.Streaming.Listen)
	for name, h := range c.RuntimeHandlers {
		warn(h.PodsPerShim > 64, "runtimeHandlers."+name+".podsPerShim",
			"is %d: when the shim dies, the containers of so many pods do", h.PodsPerShim)
	}
	for i, e := range c.IDPool.Extents {
		warn(!e.quiet(), indexed("idPool.extents", i), "has ids that other allocators use too: only %d to %d are clear of all", firstQuietID, lastQuietID)
	}
	for i, e := range c.IDPool.KubeletExtents.Extents {
		warn(!e.quiet(), indexed("idPool.kubeletExtents", i), "has ids that other allocators use too: only %d to %d are clear of all", firstQuietID, lastQuietID)
	}
	return errors.Join(append(errs, c.IDPool.warnOfMeeting())...)
}

// warnOfMeeting tells of kubelet's extents that have ids of the pool's own.
func (p IDPool) warnOfMeeting() error {
	extents := p.Extents
	if len(extents) == 0 {
		extents = []Extent{{Start: firstOwnID, Length: ownIDs}}
	}
	var errs []error
	for i, theirs := range p.KubeletExtents.Extents {
		for _, own := range extents {
			if theirs.meets(own) {
				errs = append(errs, problem(indexed("idPool.kubeletExtents", i), "has ids of userns-shim's own extent %d:%d: both would give them out", own.Start, own.Length))
			}
		}
	}
	return errors.Join(errs...)
}

// meets tells whether two extents have an id in common.
func (e Extent) meets(o Extent) bool {
	return uint64(e.Start) < uint64(o.Start)+o.Length && uint64(o.Start) < uint64(e.Start)+e.Length
}

// quiet tells whether nobody else on Linux gives out ids of e.
func (e Extent) quiet() bool {
	return e.Start >= firstQuietID && uint64(e.Start)+e.Length <= lastQuietID+1
}

// onLoopback tells whether only this machine reaches an address; one that is none is for Validate to say.
func onLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
