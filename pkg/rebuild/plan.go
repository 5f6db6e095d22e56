package rebuild

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// Source says where a record comes from.
type Source string

// The sources.
const (
	SourceRecord Source = "record" // its copy
	SourceNode   Source = "node"   // kernel and containerd
)

// Input is what is known of a node.
type Input struct {
	// Sandboxes and Containers are the copies of the records, by id, and Damaged what is wrong with others.
	Sandboxes  map[string]sandbox.Record
	Containers map[string]container.Record
	Damaged    []error
	// Stored is what containerd has, and Tasks what runs of it.
	Stored []container.StoredRecord
	Tasks  map[string]container.TaskState
	// Pins tells which namespaces of a sandbox are pinned, and Pinned are all sandboxes of which one is.
	Pins   func(id string) Pins
	Pinned []Pinned
	// Look is what the node's processes use, and Layers whose ids own writable layers, by key.
	Look   *hostids.Look
	Layers map[string]idpool.Range
	// Extents are those that ranges come from, kubelet's too.
	Extents []idpool.Range
	BootID  string
	Now     time.Time
}

// Pinned is a sandbox that has namespaces on the node.
type Pinned struct {
	ID   string
	Pins Pins
	// Range is what its user namespace maps, nil for the host's ids.
	Range *idpool.Range
	// Made is when its directory was last changed, which is when its namespaces were made.
	Made time.Time
	// Pod is what CNI was told of it, empty where it was told nothing.
	Pod sandbox.Metadata
}

// Sandbox is one to be recorded.
type Sandbox struct {
	sandbox.Record
	Source Source
}

// Container is one to be recorded.
type Container struct {
	container.Record
	Source Source
}

// Resting is a range to go into quarantine: something on the node still uses it, and no sandbox has it.
type Resting struct {
	Range idpool.Range
	Why   string
}

// Plan is what a new database is to hold.
type Plan struct {
	Sandboxes  []Sandbox
	Containers []Container
	Resting    []Resting
	// Notes say what a person should know: what was damaged, what contradicts itself, what is lost.
	Notes []string
}

// Make plans. It never fails: what it cannot make sense of becomes a note.
func Make(in Input) Plan {
	p := planner{in: in, names: map[string]bool{}}
	for _, err := range in.Damaged {
		p.note("%v", err)
	}
	p.copies()
	p.fromNode()
	p.fromPins()
	slices.SortFunc(p.plan.Sandboxes, func(a, b Sandbox) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	slices.SortFunc(p.plan.Containers, func(a, b Container) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	p.conflicts()
	p.rest()
	return p.plan
}

type planner struct {
	in    Input
	plan  Plan
	names map[string]bool // of sandboxes and containers, which are unique
}

func (p *planner) note(format string, args ...any) {
	p.plan.Notes = append(p.plan.Notes, fmt.Sprintf(format, args...))
}

// copies takes records as they were.
func (p *planner) copies() {
	for _, id := range slices.Sorted(maps.Keys(p.in.Sandboxes)) {
		p.addSandbox(Sandbox{p.in.Sandboxes[id], SourceRecord})
	}
	for _, id := range slices.Sorted(maps.Keys(p.in.Containers)) {
		p.addContainer(Container{p.in.Containers[id], SourceRecord})
	}
}

// addSandbox numbers on one whose name is taken: two copies of one name are those of a sandbox that was removed just
// when the daemon ended, and of its successor.
func (p *planner) addSandbox(s Sandbox) {
	for p.names[s.Name()] {
		s.Spec.Metadata.Attempt++
	}
	p.names[s.Name()] = true
	p.plan.Sandboxes = append(p.plan.Sandboxes, s)
}

func (p *planner) addContainer(c Container) {
	for p.names[c.Name()] {
		c.Spec.Metadata.Attempt++
	}
	p.names[c.Name()] = true
	p.plan.Containers = append(p.plan.Containers, c)
}

// conflicts notes ranges that two pods have. The daemon reports them too; both pods keep their records.
func (p *planner) conflicts() {
	for i, a := range p.plan.Sandboxes {
		for _, b := range p.plan.Sandboxes[:i] {
			if a.Range == nil || b.Range == nil || !a.Range.Overlaps(*b.Range) || a.Spec.Metadata.UID == b.Spec.Metadata.UID && *a.Range == *b.Range {
				continue
			}
			if name := a.Spec.IDs.Reservation; name != "" && name == b.Spec.IDs.Reservation {
				continue
			}
			p.note("sandboxes %s and %s of two pods have ranges %s and %s: the first keeps its in the ledger; remove one of the pods", b.ID, a.ID, b.Range, a.Range)
		}
	}
}

// rest puts ranges into quarantine of which the node has a trace and no sandbox has the ids. What was in quarantine
// without a trace is free, as it was.
func (p *planner) rest() {
	seen := map[idpool.Range]bool{}
	add := func(r idpool.Range, why string) {
		held := slices.ContainsFunc(p.plan.Sandboxes, func(s Sandbox) bool { return s.Range != nil && s.Range.Overlaps(r) })
		ours := slices.ContainsFunc(p.in.Extents, func(e idpool.Range) bool { return e.ContainsRange(r) })
		if !held && ours && !seen[r] {
			seen[r] = true
			p.plan.Resting = append(p.plan.Resting, Resting{r, why})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.in.Layers)) {
		add(p.in.Layers[key], fmt.Sprintf("the writable layer %s belongs to it", key))
	}
	for _, n := range p.in.Look.Namespaces {
		for _, r := range slices.Concat(n.UIDs, n.GIDs) {
			add(units(r), fmt.Sprintf("process %d (%s) is in a user namespace that maps it", n.Process.PID, n.Process.Command))
		}
	}
	for _, h := range p.in.Look.Holders {
		add(units(idpool.Range{Start: h.ID, Length: 1}), fmt.Sprintf("process %d (%s) has its id %d", h.Process.PID, h.Process.Command, h.ID))
	}
	slices.SortFunc(p.plan.Resting, func(a, b Resting) int { return cmp.Compare(a.Range.Start, b.Range.Start) })
}

// units widens a range to whole units, short of the last id of all.
func units(r idpool.Range) idpool.Range {
	start := r.Start / idpool.Unit * idpool.Unit
	end := (r.End() + idpool.Unit - 1) / idpool.Unit * idpool.Unit
	return idpool.Range{Start: start, Length: uint32(min(end-uint64(start), idpool.Invalid))}
}
