package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// rebuildRemedy is for pods that run and have no record.
const rebuildRemedy = "it runs and nobody manages it: if the database was lost or replaced, stop userns-shim and run `userns-shim pool rebuild`; " +
	"else end what runs in it, and the next look removes the rest"

// pins finds what is left of sandboxes without a record, and removes it where no process is in it.
func (r *Reconciler) pins(ctx context.Context) ([]Finding, error) {
	strays, err := r.opts.Sandboxes.Strays(ctx, r.ours)
	if err != nil {
		return nil, fmt.Errorf("look for pins without a sandbox: %w", err)
	}
	found := make([]Finding, 0, len(strays))
	var errs []error
	for _, s := range strays {
		f := Finding{Kind: KindPin, Sandbox: s.ID, Found: "a directory of a sandbox that has no record"}
		if len(s.Pins) > 0 {
			f.Found = fmt.Sprintf("namespaces of a sandbox that has no record: %v", s.Pins)
		}
		if s.IDs.Length != 0 {
			f.Range = s.IDs
			f.Pod, err = r.rest(&f)
			errs = append(errs, err)
		}
		switch err := r.removeStray(ctx, s); {
		case s.Process != 0:
			f.Found = fmt.Sprintf("%s; process %d is in them", f.Found, s.Process)
			f.Remedy = rebuildRemedy
		case err != nil:
			f.Remedy = fmt.Sprintf("it is tried again at the next look: %v", err)
		default:
			f.Repair = "removed"
		}
		found = append(found, f)
	}
	return found, errors.Join(errs...)
}

func (r *Reconciler) removeStray(ctx context.Context, s sandbox.Stray) error {
	if s.Process != 0 {
		return nil
	}
	return r.opts.Sandboxes.RemoveStray(ctx, s)
}

// rest puts the ids of a finding into quarantine where the ledger has them as free, so that no other pod gets them. It
// returns whose they were as far as the ledger knows, and makes the range what the ledger has.
func (r *Reconciler) rest(f *Finding) (idpool.PodUID, error) {
	if a, ok := r.opts.Pool.Holder(f.Range.Start); ok {
		f.Range = a.Range
		return a.Pod, nil
	}
	err := r.opts.DB.Update(func(tx *state.Tx) error {
		_, err := r.opts.Pool.Rest(tx.Raw(sandbox.PoolBucket), idpool.UnknownPod, f.Range)
		return err
	})
	return "", err
}

// ours says whether an id is the first of a range of the ledger's extents.
func (r *Reconciler) ours(id uint32) bool {
	part := idpool.Range{Start: id, Length: idpool.Unit}
	return id%idpool.Unit == 0 && uint64(id)+idpool.Unit <= 1<<32 && r.segmentOf(part) != idpool.SegmentExternal
}

// processes finds those in user namespaces that userns-shim made, for a pod of which the ledger knows nothing any more. Whose namespace is
// owned by the id that is its root was made by userns-shim: others make them as the host's root, or as themselves.
func (r *Reconciler) processes(ctx context.Context) ([]Finding, error) {
	look, err := r.opts.Look(ctx)
	if err != nil {
		return nil, err
	}
	var found []Finding
	var errs []error
	for _, n := range look.Namespaces {
		f, ok := r.orphan(n)
		if !ok {
			continue
		}
		_, err := r.rest(&f)
		f.Repair = "into quarantine; the process is left alone"
		found, errs = append(found, f), append(errs, err)
	}
	return found, errors.Join(errs...)
}

// orphan looks at the namespace once more after the ledger: a process that was in it before the ledger was read and is
// there after is one that the ledger should know of.
func (r *Reconciler) orphan(n hostids.Namespace) (Finding, bool) {
	if len(n.UIDs) != 1 || !n.UIDs[0].Aligned() || !r.ours(n.UIDs[0].Start) {
		return Finding{}, false
	}
	if _, held := r.opts.Pool.Holder(n.UIDs[0].Start); held {
		return Finding{}, false
	}
	owner, err := r.opts.NamespaceOwner(n)
	if err != nil || owner != n.UIDs[0].Start { // it has ended, or is another program's
		return Finding{}, false
	}
	return Finding{
		Kind: KindProcess, Range: n.UIDs[0],
		Found: fmt.Sprintf("process %d (%s) is in a pod's user namespace of which nothing is known", n.Process.PID, n.Process.Command),
	}, true
}

// layers finds writable layers of containers of pods that the ledger does not know. Keys of layers are ids of containers.
func (r *Reconciler) layers(ctx context.Context) ([]Finding, error) {
	before, err := r.opts.Engine.Layers(ctx)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(before, func(_ string, ids idpool.Range) bool {
		_, held := r.opts.Pool.Holder(ids.Start)
		return held
	})
	if len(before) == 0 {
		return nil, nil
	}
	after, err := r.opts.Engine.Layers(ctx)
	if err != nil {
		return nil, err
	}
	var found []Finding
	var errs []error
	for key, ids := range before {
		if after[key] != ids {
			continue
		}
		f := Finding{
			Kind: KindLayer, Range: ids,
			Found:  fmt.Sprintf("the writable layer %s belongs to ids of which nothing is known", key),
			Repair: "into quarantine while the layer is there",
		}
		_, err := r.rest(&f)
		found, errs = append(found, f), append(errs, err)
	}
	return found, errors.Join(errs...)
}

// containers finds those that containerd has, as made by userns-shim, and no record names.
func (r *Reconciler) containers(ctx context.Context) ([]Finding, error) {
	ids, err := r.opts.Engine.Containers(ctx)
	if err != nil {
		return nil, err
	}
	unknown := slices.DeleteFunc(ids, r.opts.Known)
	if len(unknown) == 0 {
		return nil, nil
	}
	if ids, err = r.opts.Engine.Containers(ctx); err != nil {
		return nil, err
	}
	var found []Finding
	for _, id := range unknown {
		if slices.Contains(ids, id) {
			found = append(found, Finding{
				Kind:   KindContainer,
				Found:  fmt.Sprintf("containerd has container %s, of which nothing is known", id),
				Remedy: rebuildRemedy,
			})
		}
	}
	return found, nil
}
