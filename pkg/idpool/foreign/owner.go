package foreign

import (
	"cmp"
	"slices"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// Kind says what an owner is.
type Kind string

// The kinds of owners.
const (
	KindNamespace  Kind = "namespace"          // a user namespace that processes are in
	KindProcess    Kind = "process"            // a process outside of such a namespace, by its credentials
	KindPinCopy    Kind = "pin-copy"           // a namespace of a pod that is gone, mounted somewhere
	KindUser       Kind = "user"               // of the name service
	KindGroup      Kind = "group"              // likewise
	KindSubUID     Kind = "subuid"             // a line of /etc/subuid
	KindSubGID     Kind = "subgid"             // a line of /etc/subgid
	KindNSResource Kind = "nsresource"         // a user namespace of systemd-nsresourced
	KindNspawn     Kind = "nspawn"             // a container of systemd-nspawn that picked its ids
	KindStorage    Kind = "containers-storage" // a container of Podman, Buildah or CRI-O
	KindLXC        Kind = "lxc"                // an instance of Incus, LXD or LXC
)

// Kinds are all of them.
func Kinds() []Kind {
	return []Kind{
		KindNamespace, KindProcess, KindPinCopy, KindUser, KindGroup, KindSubUID, KindSubGID,
		KindNSResource, KindNspawn, KindStorage, KindLXC,
	}
}

// Running says that an owner of the kind uses its ids now, beyond having a right to them.
func (k Kind) Running() bool { return k == KindNamespace || k == KindProcess || k == KindNspawn }

// Owner is somebody who has host ids that the ledger has too.
type Owner struct {
	Kind  Kind          `json:"kind"`
	Range idpool.Range  `json:"range"` // the owner's ids
	Who   string        `json:"who"`   // such as "process 4711 (bash)"
	Where string        `json:"where,omitempty"`
	Pod   idpool.PodUID `json:"pod,omitempty"` // the first pod that has some of these ids now
}

// Failure is a source that could not be read to its end. The owners that it showed before are still told.
type Failure struct {
	Source string `json:"source"`
	Err    error  `json:"-"`
}

// Report is what one scan found.
type Report struct {
	Began time.Time
	Took  time.Duration
	// Owners are ordered by kind and range; of each kind at most maxOwners are kept.
	Owners []Owner
	// Counts are of all that were seen. Every kind is in it.
	Counts map[Kind]int
	Failed []Failure
}

// maxOwners bounds what is kept of each kind. The rest is only counted.
const maxOwners = 64

// found collects what one source finds.
type found struct {
	owners []Owner
	counts map[Kind]int
}

func (f *found) add(o Owner) {
	if f.counts == nil {
		f.counts = map[Kind]int{}
	}
	f.counts[o.Kind]++
	if f.counts[o.Kind] <= maxOwners {
		f.owners = append(f.owners, o)
	}
}

func sortOwners(owners []Owner) {
	kinds := Kinds()
	slices.SortStableFunc(owners, func(a, b Owner) int {
		return cmp.Or(
			cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)),
			cmp.Compare(a.Range.Start, b.Range.Start),
			cmp.Compare(a.Who, b.Who),
		)
	})
}
