package leaks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// Thing is one thing that could be a leak.
type Thing struct {
	Kind string // "mount", "cgroup", "process", ...
	Name string // path, id or description
}

func (t Thing) String() string { return t.Kind + " " + t.Name }

// Inventory counts the things on a node; the same mount point can be mounted twice.
type Inventory map[Thing]int

func (inv Inventory) add(kind, format string, args ...any) {
	inv[Thing{Kind: kind, Name: fmt.Sprintf(format, args...)}]++
}

// since lists what inv has more of than before.
func (inv Inventory) since(before Inventory) []Thing {
	var more []Thing
	for thing, count := range inv {
		for range count - before[thing] {
			more = append(more, thing)
		}
	}
	slices.SortFunc(more, func(a, b Thing) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
	return more
}

// Namespaces is the view of a node's mount and network namespace; labnode.World is one.
type Namespaces interface {
	// ProcDir is the /proc directory of a thread that is in them.
	ProcDir() string
	// Do runs f on such a thread.
	Do(f func() error) error
	// Output runs a program in them.
	Output(cmd *exec.Cmd) ([]byte, error)
}

// Scope says where a node's things are. A part that is left empty is not looked at.
type Scope struct {
	Namespaces Namespaces
	// MountRoots: every mount at or below one of them counts.
	MountRoots []string
	// StateDirs are walked for FIFOs, and for files whose path holds an id of 64 hex digits.
	StateDirs []string
	// NetNSDir is where pinned network namespaces are; every file in it counts.
	NetNSDir string
	// Cgroup is the parent of all pods' cgroups, a path below each hierarchy's root.
	Cgroup string
	// Mark is on the command line of every engine process of the node.
	Mark string
	// Daemons are the pids that belong to the node itself. The namespaces and detached mounts that they
	// hold open count.
	Daemons []int
	// HasID tells whether a host id is one that the node gives to pods.
	HasID func(id uint32) bool
	// Containerd is asked for what it holds in ContainerdNamespace.
	Containerd          *grpc.ClientConn
	ContainerdNamespace string
	// AddressDir is where the host-local plugin keeps one file for each address in use.
	AddressDir string
	// Bridge is the interface that stays when the last pod has gone.
	Bridge string
	// Ranges lists the id ranges in use.
	Ranges func(ctx context.Context) ([]string, error)
}

// Take makes an inventory.
func (s Scope) Take(ctx context.Context) (Inventory, error) {
	inv := Inventory{}
	err := errors.Join(
		s.addMounts(inv),
		s.addStateFiles(inv),
		s.addNetNSPins(inv),
		s.addCgroups(inv),
		s.addProcesses(inv),
		s.addDescriptors(inv),
		s.addContainerd(ctx, inv),
		s.addAddresses(inv),
		s.addLinks(inv),
		s.addFilterRules(ctx, inv),
		s.addRanges(ctx, inv),
	)
	if err != nil {
		return nil, fmt.Errorf("take inventory: %w", err)
	}
	return inv, nil
}

// Check returns what the node has more of than before. Some things take a moment to go, such as a shim
// after its last task or a snapshot that a garbage collection removes; Check waits for them up to patience.
func (s Scope) Check(ctx context.Context, before Inventory, patience time.Duration) ([]Thing, error) {
	deadline := time.Now().Add(patience)
	for {
		now, err := s.Take(ctx)
		if err != nil {
			return nil, err
		}
		more := now.since(before)
		if len(more) == 0 || time.Now().After(deadline) {
			return more, nil
		}
		select {
		case <-ctx.Done():
			return more, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s Scope) addRanges(ctx context.Context, inv Inventory) error {
	if s.Ranges == nil {
		return nil
	}
	ranges, err := s.Ranges(ctx)
	if err != nil {
		return fmt.Errorf("list id ranges: %w", err)
	}
	for _, r := range ranges {
		inv.add("id range", "%s", r)
	}
	return nil
}
