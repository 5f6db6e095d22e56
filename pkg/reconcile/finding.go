package reconcile

import (
	"cmp"
	"slices"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// Kind tells findings apart.
type Kind string

// The kinds of leaks, in the words of metrics and commands.
const (
	// KindLedger: the ledger gives the range to a sandbox that has no record, or whose record has another range. The range
	// goes into quarantine.
	KindLedger Kind = "ledger"
	// KindRecord: a sandbox has a range that the ledger does not give it. The ledger gets it again, unless it is
	// another's: that is reported.
	KindRecord Kind = "record"
	// KindPin: namespaces are pinned for a sandbox that has no record. They are unpinned once no process is in them.
	KindPin Kind = "pin"
	// KindProcess: a process is in a pod's user namespace of which the ledger knows nothing. Its range goes into quarantine.
	KindProcess Kind = "process"
	// KindLayer: a writable layer belongs to ids of which the ledger knows nothing. They go into quarantine.
	KindLayer Kind = "layer"
	// KindContainer: containerd has a container of a pod that no record names. It is reported.
	KindContainer Kind = "container"
)

// Kinds are all of them.
func Kinds() []Kind {
	return []Kind{KindLedger, KindRecord, KindPin, KindProcess, KindLayer, KindContainer}
}

// Finding is one leak.
type Finding struct {
	Kind Kind
	// Range is empty where the ids are not known.
	Range   idpool.Range
	Pod     idpool.PodUID // empty where nobody knows
	Sandbox string        // id, empty where nobody knows
	// Found says what was found, and where.
	Found string
	// Repair says what was done, empty where nothing was.
	Repair string
	// Remedy says what a person can do where nothing was done.
	Remedy string
	// Since is when it was found first.
	Since time.Time
}

// Repaired says whether nothing is left to do.
func (f Finding) Repaired() bool { return f.Repair != "" }

// key is the same for one leak in several runs.
func (f Finding) key() string {
	return string(f.Kind) + " " + f.Sandbox + " " + f.Range.String() + " " + f.Found
}

// Report is the outcome of one run.
type Report struct {
	Began    time.Time // zero before the first run
	Took     time.Duration
	Findings []Finding
	// Err is why a part was not looked for, nil where all was. Findings of that part are those of earlier runs.
	Err error
}

func sortFindings(found []Finding) {
	slices.SortFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Range.Start, b.Range.Start), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Sandbox, b.Sandbox))
	})
}
