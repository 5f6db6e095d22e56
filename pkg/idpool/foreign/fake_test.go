package foreign

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// unit is the nth range that nothing on a node uses: those below the last that a pod can have.
func unit(n uint32) idpool.Range {
	return idpool.Range{Start: 0xFFE00000 + n*idpool.Unit, Length: idpool.Unit}
}

// fakeLedger has the extents of eight units each: units 0-7 are the pool's, 8-15 kubelet's.
type fakeLedger struct {
	held []idpool.Allocation
}

func (l *fakeLedger) Extents(s idpool.Segment) []idpool.Range {
	switch s {
	case idpool.SegmentPool:
		return []idpool.Range{{Start: unit(0).Start, Length: 8 * idpool.Unit}}
	case idpool.SegmentKubelet:
		return []idpool.Range{{Start: unit(8).Start, Length: 8 * idpool.Unit}}
	}
	return nil
}

func (l *fakeLedger) Holder(id uint32) (idpool.Allocation, bool) {
	for _, a := range l.held {
		if a.Range.Contains(id) {
			return a, true
		}
	}
	return idpool.Allocation{}, false
}

func (l *fakeLedger) hold(r idpool.Range, state idpool.State, pod idpool.PodUID) {
	l.held = append(l.held, idpool.Allocation{Range: r, State: state, Pod: pod, Segment: idpool.SegmentPool})
}

// look reads one source.
func look(t *testing.T, s Source, l Ledger) []Owner {
	t.Helper()
	var f found
	if err := s.find(t.Context(), claimsOf(l), &f); err != nil {
		t.Fatal(err)
	}
	return f.owners
}

// tree writes files below a new root.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// wantOwners compares what was found, apart from where.
func wantOwners(t *testing.T, got []Owner, want ...Owner) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("found %+v, want %+v", got, want)
	}
	for i, o := range got {
		if o.Where == "" && o.Kind != KindProcess && o.Kind != KindNamespace {
			t.Errorf("%+v does not say where", o)
		}
		o.Where = ""
		if o != want[i] {
			t.Errorf("found %+v, want %+v", o, want[i])
		}
	}
}

// sourceOf is a source that does what it is told.
func sourceOf(name string, find func(ctx context.Context, f *found) error) Source {
	return Source{name: name, find: func(ctx context.Context, _ claims, f *found) error { return find(ctx, f) }}
}
