package idnames

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// maxName is what utmp holds without its final zero (UT_NAMESIZE - 1), the limit of systemd's strict rules.
const maxName = 31

// Ledger is the pool.
type Ledger interface {
	// Holder returns the entry that the host id belongs to.
	Holder(id uint32) (idpool.Allocation, bool)
}

// Pod is how a pod is called.
type Pod struct {
	Namespace, Name string
}

// Options say where names come from.
type Options struct {
	Ledger Ledger
	// Pod returns the pod of a sandbox; false where it is not known.
	Pod func(sandbox string) (Pod, bool)
	// Extents are the ranges of which free ids are named as well.
	Extents func() []idpool.Range
}

// Names names host ids.
type Names struct {
	o Options
}

// New returns the names of a pool's ids.
func New(o Options) *Names { return &Names{o} }

// Name is a host id with its name.
type Name struct {
	ID   uint32
	Name string
	// Real is a sentence about the id, fit for a GECOS field.
	Real string
}

// ByID returns the name of a host id, false for one that is not the pool's.
func (n *Names) ByID(id uint32) (Name, bool) {
	if nobodys(id) {
		return Name{}, false
	}
	if a, ok := n.o.Ledger.Holder(id); ok {
		return n.held(id, a), true
	}
	for _, extent := range n.o.Extents() {
		if extent.Contains(id) {
			return free(id), true
		}
	}
	return Name{}, false
}

// ByName returns the host id of a name, false for what is not the name of an id right now.
func (n *Names) ByName(name string) (Name, bool) {
	id, ok := idOf(name)
	if !ok {
		return Name{}, false
	}
	found, ok := n.ByID(id)
	return found, ok && found.Name == name
}

// nobodys says whether the id is never the pool's, whatever its ledger says: permissive claims take any.
func nobodys(id uint32) bool {
	return idpool.HostRange().Contains(id) || idpool.ForeignRange().Contains(id) || id == idpool.Invalid
}

// held names an id that an entry of the ledger has.
func (n *Names) held(id uint32, a idpool.Allocation) Name {
	offset := id - a.Range.Start
	about := func(prefix, label, whose string) Name {
		return Name{ID: id, Name: compose(prefix, label, a.Range, offset), Real: gecos(fmt.Sprintf("ID %d of %s", offset, whose))}
	}
	switch a.State {
	case idpool.StateReserved:
		return about(statePrefix, "reserved", fmt.Sprintf("range %d reserved as %s", a.Range.Start, a.Reservation))
	case idpool.StateQuarantined:
		last := "pod UID " + string(a.Pod)
		if a.Pod == "" {
			last = "reservation " + a.Reservation
		}
		return about(statePrefix, "quarantined", fmt.Sprintf("range %d in quarantine after %s", a.Range.Start, last))
	}
	for i := len(a.Sandboxes) - 1; i >= 0; i-- {
		if pod, ok := n.o.Pod(a.Sandboxes[i]); ok {
			return about(podPrefix, pod.Name, fmt.Sprintf("pod %s/%s", pod.Namespace, pod.Name))
		}
	}
	return about(podPrefix, string(a.Pod), fmt.Sprintf("pod UID %s", a.Pod))
}

func free(id uint32) Name {
	slot := idpool.Range{Start: id &^ (idpool.Unit - 1), Length: idpool.Unit}
	return Name{
		ID:   id,
		Name: compose(statePrefix, "free", slot, id-slot.Start),
		Real: fmt.Sprintf("ID %d of free range %d", id-slot.Start, slot.Start),
	}
}

// A label that tells a state follows an underscore, which labels of pods do not have: a pod that is called free
// does not look like free ids.
const (
	podPrefix   = "userns-"
	statePrefix = "userns_"
)

// compose cuts the label so that the names of all ids of the range have the same one.
func compose(prefix, label string, r idpool.Range, offset uint32) string {
	tag := tagOf(r)
	widest := strconv.FormatUint(uint64(r.Length)-1, 10)
	room := maxName - len(prefix) - len("-") - len(tag) - len("-") - len(widest)
	return prefix + clean(label, room) + "-" + tag + "-" + strconv.FormatUint(uint64(offset), 10)
}

// tagOf has four digits for ranges that begin where ranges do, and eight for those that permissive claims make.
func tagOf(r idpool.Range) string {
	if r.Start%idpool.Unit == 0 {
		return fmt.Sprintf("%04x", r.Start/idpool.Unit)
	}
	return fmt.Sprintf("%08x", r.Start)
}

// clean makes a part of a user's name of what a client called its pod.
func clean(label string, room int) string {
	out := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, label)
	out = strings.Trim(out, "-")
	out = strings.Trim(out[:min(len(out), room)], "-")
	if out == "" {
		return "x"
	}
	return out
}

// gecos leaves out what has a meaning in /etc/passwd, or on a terminal.
func gecos(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == ':' {
			return '?'
		}
		return r
	}, text)
}

// idOf computes the id of a name of compose's form. The label is not looked at.
func idOf(name string) (uint32, bool) {
	if len(name) > maxName || !strings.HasPrefix(name, podPrefix) && !strings.HasPrefix(name, statePrefix) {
		return 0, false
	}
	parts := strings.Split(name, "-")
	if len(parts) < 3 {
		return 0, false
	}
	tag, offset := parts[len(parts)-2], parts[len(parts)-1]
	base, err := strconv.ParseUint(tag, 16, 32)
	if err != nil {
		return 0, false
	}
	if len(tag) == 4 {
		base *= idpool.Unit
	}
	n, err := strconv.ParseUint(offset, 10, 32)
	if err != nil || base+n > idpool.Invalid {
		return 0, false
	}
	return uint32(base + n), true
}
