package foreign

import "github.com/userns-shim/userns-shim/pkg/idpool"

// Window is a part of the ids that something else on Linux hands out by default, or that is better left alone.
type Window struct {
	Range idpool.Range
	Whose string
	// Never says that no pod should ever have these ids, whatever runs on the node.
	Never bool
}

// Windows are those that are known, as of the defaults of these programs.
func Windows() []Window {
	return []Window{
		{Range: idpool.HostRange(), Whose: "the host's own users", Never: true},
		{Range: idpool.Range{Start: 100000, Length: 600000001}, Whose: "useradd's subordinate ids (SUB_UID_MIN in login.defs)"},
		{Range: idpool.Range{Start: 200000, Length: 2000000000}, Whose: "SSSD's and IPA's mapped users"},
		{Range: idpool.Range{Start: 524288, Length: 1878523904}, Whose: "systemd-nspawn and systemd-nsresourced"},
		{Range: idpool.Range{Start: 1000000, Length: 1000000000}, Whose: "Incus and LXD"},
		{Range: idpool.Range{Start: 1000000000, Length: 1000000001}, Whose: "OpenShift's ranges of namespaces"},
		{Range: idpool.ForeignRange(), Whose: "systemd's owner of foreign disk images", Never: true},
	}
}

// SignedLimit is where ids begin that programs get wrong which take them for signed numbers.
const SignedLimit = 1 << 31

// Overlap is an extent that meets a window.
type Overlap struct {
	Extent idpool.Range
	Window Window
}

// Overlaps are the windows that the extents meet.
func Overlaps(extents []idpool.Range) []Overlap {
	var out []Overlap
	for _, e := range extents {
		for _, w := range Windows() {
			if e.Overlaps(w.Range) {
				out = append(out, Overlap{Extent: e, Window: w})
			}
		}
	}
	return out
}
