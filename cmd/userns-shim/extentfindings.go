package main

import (
	"fmt"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/foreign"
	"github.com/userns-shim/userns-shim/pkg/idpool/subid"
)

// kubeletLine is what an installer puts into /etc/subuid and /etc/subgid.
func kubeletLine() string { return fmt.Sprintf("%s:%s", subid.User, idpool.DefaultKubeletExtents()[0]) }

// codeUnlimited is that of a node on which kubelet gives out any ids.
const codeUnlimited = "kubelet-unlimited"

// extentFindings judge the extents of both segments: against each other, and against what others hand out by default. Where nothing limits
// kubelet that is one finding, and its extents are not looked at.
func extentFindings(kubelet, own []idpool.Range, limited bool) []admin.Finding {
	var out []admin.Finding
	add := func(severity, code string, r idpool.Range, message, remedy string) {
		out = append(out, admin.Finding{Severity: severity, Code: code, Start: r.Start, Length: r.Length, Message: message, Remedy: remedy})
	}
	extents := map[string][]idpool.Range{"idPool.extents": own}
	if limited {
		extents["kubelet's extents"] = kubelet
	} else {
		add(admin.SeverityWarning, codeUnlimited, idpool.Range{}, "nothing limits the ids that kubelet gives to pods: those of other programs are among them, and of the pool's own segment",
			fmt.Sprintf("useradd --system --no-create-home %s; echo %s | tee -a /etc/subuid /etc/subgid; restart kubelet and userns-shim", subid.User, kubeletLine()))
	}
	for _, a := range own {
		for _, b := range extents["kubelet's extents"] {
			if a.Overlaps(b) {
				add(admin.SeverityError, "extents-meet", a, fmt.Sprintf("idPool.extents has ids that kubelet draws from as well (%s): it may claim what another pod was given", b),
					"make them disjoint: idPool.extents in the configuration, or kubelet's line in /etc/subuid and /etc/subgid")
			}
		}
	}
	for _, name := range []string{"idPool.extents", "kubelet's extents"} {
		for _, o := range foreign.Overlaps(extents[name]) {
			severity, message := admin.SeverityWarning, fmt.Sprintf("%s has ids that belong to %s by default (%s)", name, o.Window.Whose, o.Window.Range)
			if o.Window.Never {
				severity = admin.SeverityError
			}
			add(severity, "extent-overlap", o.Extent, message, "use "+extentAdvice(name))
		}
		for _, e := range extents[name] {
			if e.End() > foreign.SignedLimit {
				add(admin.SeverityWarning, "extent-signed", e, name+" reaches above 2147483647, and some programs take such ids for negative", "use "+extentAdvice(name))
			}
		}
	}
	return out
}

func extentAdvice(name string) string {
	if name == "idPool.extents" {
		return "the default, " + idpool.DefaultExtents()[0].String()
	}
	return "the line " + kubeletLine() + " in /etc/subuid and /etc/subgid"
}

// limitsKubelet says whether extents are less than what kubelet takes on a node without a user of its own.
func limitsKubelet(kubelet []idpool.Range) bool {
	return len(kubelet) != 1 || kubelet[0] != subid.Unconfigured(idpool.Unit)
}
