package idnames

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// fakeLedger holds allocations by their first ids.
type fakeLedger []idpool.Allocation

func (l fakeLedger) Holder(id uint32) (idpool.Allocation, bool) {
	for _, a := range l {
		if a.Range.Contains(id) {
			return a, true
		}
	}
	return idpool.Allocation{}, false
}

const unit = idpool.Unit

// newNames returns the names of a pool with each kind of entry.
func newNames(more ...idpool.Allocation) *Names {
	pods := map[string]Pod{
		"s-web":   {"default", "web-7d4b9c6f5-x2k8p"},
		"s-short": {"kube-system", "dns"},
		"s-free":  {"evil", "free"},
		"s-odd":   {"evil:\x1b[31m", "-Ünter_Strich.\n"},
	}
	ledger := fakeLedger{
		{Range: idpool.Range{Start: 100 * unit, Length: unit}, State: idpool.StateAllocated, Pod: "u1", Sandboxes: []string{"gone", "s-web"}},
		{Range: idpool.Range{Start: 101 * unit, Length: 3 * unit}, State: idpool.StateAllocated, Pod: "u2", Sandboxes: []string{"s-short"}},
		{Range: idpool.Range{Start: 104 * unit, Length: unit}, State: idpool.StateQuarantined, Pod: "6d3b1c2e-93a4"},
		{Range: idpool.Range{Start: 105 * unit, Length: unit}, State: idpool.StateReserved, Reservation: "nfs"},
		{Range: idpool.Range{Start: 106 * unit, Length: unit}, State: idpool.StateAllocated, Pod: "6d3b1c2e-93a4-4f0b", Sandboxes: []string{"gone"}},
		{Range: idpool.Range{Start: 107 * unit, Length: unit}, State: idpool.StateAllocated, Pod: "u3", Sandboxes: []string{"s-free"}},
		{Range: idpool.Range{Start: 108 * unit, Length: unit}, State: idpool.StateAllocated, Pod: "u4", Sandboxes: []string{"s-odd"}},
	}
	return New(Options{
		Ledger: append(ledger, more...),
		Pod:    func(id string) (Pod, bool) { p, ok := pods[id]; return p, ok },
		Extents: func() []idpool.Range {
			return []idpool.Range{{Start: 100 * unit, Length: 50 * unit}, {Start: 0xFFFE0000, Length: 2 * unit}}
		},
	})
}

func TestNamesOfIDs(t *testing.T) {
	given := idpool.Allocation{Range: idpool.Range{Start: 130 * unit, Length: unit}, State: idpool.StateQuarantined, Reservation: "smb"}
	n := newNames(given)
	for id, want := range map[uint32][2]string{
		100 * unit:         {"userns-web-7d4b9c6f5-0064-0", "ID 0 of pod default/web-7d4b9c6f5-x2k8p"},
		101*unit - 1:       {"userns-web-7d4b9c6f5-0064-65535", "ID 65535 of pod default/web-7d4b9c6f5-x2k8p"},
		101*unit + 1000:    {"userns-dns-0065-1000", "ID 1000 of pod kube-system/dns"},
		103*unit + 1:       {"userns-dns-0065-131073", "ID 131073 of pod kube-system/dns"},
		104*unit + 5:       {"userns_quarantined-0068-5", "ID 5 of range 6815744 in quarantine after pod UID 6d3b1c2e-93a4"},
		130*unit + 5:       {"userns_quarantined-0082-5", "ID 5 of range 8519680 in quarantine after reservation smb"},
		105*unit + 5:       {"userns_reserved-0069-5", "ID 5 of range 6881280 reserved as nfs"},
		106*unit + 5:       {"userns-6d3b1c2e-93a4-006a-5", "ID 5 of pod UID 6d3b1c2e-93a4-4f0b"},
		107 * unit:         {"userns-free-006b-0", "ID 0 of pod evil/free"},
		108 * unit:         {"userns-nter-strich-006c-0", "ID 0 of pod evil??[31m/-?nter_Strich.?"},
		149*unit + 7:       {"userns_free-0095-7", "ID 7 of free range 9764864"},
		idpool.Invalid - 1: {"userns_free-ffff-65534", "ID 65534 of free range 4294901760"},
	} {
		got, ok := n.ByID(id)
		if !ok || got != (Name{ID: id, Name: want[0], Real: want[1]}) {
			t.Errorf("id %d is %+v, %v; want %q", id, got, ok, want)
		}
		if back, ok := n.ByName(want[0]); !ok || back != got {
			t.Errorf("name %q is %+v, %v", want[0], back, ok)
		}
	}
}

// TestIDsWithoutNames holds that the host's ids, systemd's and -1 have no names, even where a permissive claim gave
// them to a pod.
func TestIDsWithoutNames(t *testing.T) {
	n := newNames(idpool.Allocation{Range: idpool.Range{Start: 0, Length: 50 * unit}, State: idpool.StateAllocated, Pod: "p", Sandboxes: []string{"s-short"}},
		idpool.Allocation{Range: idpool.ForeignRange(), State: idpool.StateAllocated, Pod: "q", Sandboxes: []string{"s-web"}})
	for _, id := range []uint32{0, 1, 1000, 65534, 65535, 50 * unit, 150 * unit, 0x7FFE0000, 0x7FFEFFFF, idpool.Invalid} {
		if got, ok := n.ByID(id); ok {
			t.Errorf("id %d is %+v", id, got)
		}
	}
	if got, ok := n.ByID(unit); !ok || got.Name != "userns-dns-0000-65536" {
		t.Errorf("the first id after the host's: %+v, %v", got, ok)
	}
	for _, name := range []string{
		"", "root", "userns", "userns-", "userns--", "userns---", "userns-dns-0065", "userns-dns-0065-", "userns-dns-0065-01000", "userns-dns-0065-+1",
		"userns-dns-0065-196608", "userns-dns-65-1000", "userns-dns-00650000-1000", "userns-dns-0065-4294967296", "userns-dns-ffff-4294967295",
		"userns-other-0065-1000", "userns_dns-0065-1000", "USERNS-dns-0065-1000", "userns-dns-0065-1000 ", "userns-DNS-0065-1000",
		"userns-dns-0000-0", "userns_free-0000-0", "userns_free-7ffe-0", "userns_free-ffff-65535", "userns_free-0064-0", strings.Repeat("userns-", 100),
	} {
		if got, ok := n.ByName(name); ok {
			t.Errorf("name %q is %+v", name, got)
		}
	}
}

// TestUnalignedRanges: permissive claims can share a slot, and still have names of their own.
func TestUnalignedRanges(t *testing.T) {
	whole := idpool.Allocation{Range: idpool.Range{Start: 70_000, Length: 5}, State: idpool.StateAllocated, Pod: "p", Sandboxes: []string{"s-web"}}
	most := idpool.Allocation{Range: idpool.Range{Start: 70_005, Length: 1 << 31}, State: idpool.StateAllocated, Pod: "q", Sandboxes: []string{"s-web"}}
	n := New(Options{
		Ledger:  fakeLedger{whole, most},
		Pod:     func(string) (Pod, bool) { return Pod{"default", "web-7d4b9c6f5-x2k8p"}, true },
		Extents: func() []idpool.Range { return nil },
	})
	for id, want := range map[uint32]string{
		70_003: "userns-web-7d4b9c6f5-00011170-3", 70_005: "userns-web-00011175-0", 70_005 + 1<<31 - 1: "userns-web-00011175-2147483647",
	} {
		got, ok := n.ByID(id)
		if !ok || got.Name != want {
			t.Errorf("id %d is %q, want %q", id, got.Name, want)
		}
		if back, ok := n.ByName(got.Name); !ok || back.ID != id {
			t.Errorf("name %q is %+v", got.Name, back)
		}
	}
}

// strict is systemd's rule for users that programs make up, without its limit of 31 characters.
var strict = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_-]*$`)

// FuzzNames holds for any pod that each id has one valid name, and that it is no other id's.
func FuzzNames(f *testing.F) {
	f.Add("web", "default", uint32(5*unit), uint32(unit), uint32(7))
	f.Add("", "", uint32(1), uint32(1<<32-2), uint32(1<<31))
	f.Add("a-0001-2", "x:y", uint32(0xFFFF0000), uint32(unit-1), uint32(unit))
	f.Fuzz(func(t *testing.T, name, namespace string, start, length, at uint32) {
		r := idpool.Range{Start: start, Length: length}
		if !r.Mappable() {
			return
		}
		n := New(Options{
			Ledger:  fakeLedger{{Range: r, State: idpool.StateAllocated, Pod: idpool.PodUID(name), Sandboxes: []string{"s"}}},
			Pod:     func(string) (Pod, bool) { return Pod{namespace, name}, true },
			Extents: func() []idpool.Range { return []idpool.Range{{Start: unit, Length: 1<<32 - 1 - unit}} },
		})
		for _, id := range []uint32{start, start + at%length, uint32(r.End() - 1), at, rand.Uint32()} {
			got, ok := n.ByID(id)
			if nobodys(id) == ok {
				t.Fatalf("id %d: %+v, %v", id, got, ok)
			}
			if !ok {
				continue
			}
			if len(got.Name) > maxName || !strict.MatchString(got.Name) || strings.ContainsAny(got.Real, ":\n") {
				t.Fatalf("id %d is %+v", id, got)
			}
			if back, ok := n.ByName(got.Name); !ok || back != got {
				t.Fatalf("name %q of id %d is that of %+v, %v", got.Name, id, back, ok)
			}
		}
		_, _ = n.ByName(name)
	})
}
