package sandbox

import (
	"errors"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

func TestUpdateResources(t *testing.T) {
	n := newNode(t, nil)
	spec := podSpec("a")
	spec.Resources = &ocispec.Resources{CPUShares: 2}
	rec, err := n.Run(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.UpdateResources(t.Context(), rec.ID, &ocispec.Resources{CPUShares: 10}, &ocispec.Resources{MemoryLimit: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := n.UpdateResources(t.Context(), rec.ID[:12], nil, &ocispec.Resources{MemoryLimit: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	got, err := n.Get(rec.ID)
	if err != nil || got.Overhead.CPUShares != 10 || got.Resources.MemoryLimit != 2<<20 {
		t.Errorf("after a restart: overhead %+v, resources %+v, %v", got.Overhead, got.Resources, err)
	}
	if again, err := n.Run(t.Context(), spec); err != nil || again.ID != rec.ID {
		t.Errorf("the same request again gives %s, %v: want sandbox %s", again.ID, err, rec.ID)
	}
	if err := n.UpdateResources(t.Context(), "nowhere", nil, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown sandbox: %v, want ErrNotFound", err)
	}
}
