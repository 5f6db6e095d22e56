package container

import (
	"errors"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

func TestUpdateResources(t *testing.T) {
	n := newNode(t)
	n.opts.Updates = n.engine
	n.restart(t)
	id := n.mustStart(t, "a")
	shares := func() uint64 { return *n.engine.records[id].Spec.Linux.Resources.CPU.Shares }
	if err := n.UpdateResources(t.Context(), id, ocispec.Resources{CPUShares: 512, MemoryLimit: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := n.UpdateResources(t.Context(), id, ocispec.Resources{CPUShares: 256}); err != nil {
		t.Fatal(err)
	}
	rec, err := n.Get(id)
	if err != nil || rec.Spec.Resources.CPUShares != 256 || rec.Spec.Resources.MemoryLimit != 64<<20 || shares() != 256 {
		t.Errorf("got %+v, %v, specification %d shares", rec.Spec.Resources, err, shares())
	}
	n.engine.fail = "update task"
	if err := n.UpdateResources(t.Context(), id, ocispec.Resources{CPUShares: 100}); !errors.Is(err, errInjected) || !errors.Is(err, ErrUpdate) {
		t.Fatalf("got %v, want ErrUpdate with the injected error", err)
	}
	if rec, _ := n.Get(id); rec.Spec.Resources.CPUShares != 256 || shares() != 256 {
		t.Errorf("a refused update stays: record %d, specification %d", rec.Spec.Resources.CPUShares, shares())
	}
	n.engine.end(id, 0)
	n.awaitExit(t, id)
	if err := n.UpdateResources(t.Context(), id, ocispec.Resources{CPUShares: 100}); !errors.Is(err, ErrState) {
		t.Errorf("update of an exited container: got %v, want ErrState", err)
	}
}
