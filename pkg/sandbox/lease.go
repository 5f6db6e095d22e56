package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// PoolBucket holds the id pool's ledger in the state database.
const PoolBucket = "idpool"

// idsPerPod is the length of a range that userns-shim chooses.
const idsPerPod = idpool.Unit

func (m *Manager) handlerName(spec Spec) string {
	return cmp.Or(spec.RuntimeHandler, m.opts.DefaultHandler)
}

// RestoreLease enters the sandbox's range in a ledger that does not have it, as idpool.Pool.Restore does; a shared one is reserved again under
// the name by which the pod asked for it.
func RestoreLease(pool *idpool.Pool, b idpool.Bucket, rec Record) error {
	name := rec.Spec.IDs.Reservation
	if name == "" {
		return pool.Restore(b, idpool.PodUID(rec.Spec.Metadata.UID), rec.ID, *rec.Range)
	}
	if err := pool.Reserve(b, name, *rec.Range); err != nil {
		return err
	}
	_, err := pool.Join(b, name, rec.ID)
	return err
}

// checkUserNamespaces refuses a pod whose user namespace the node could make and its handler not use.
func (m *Manager) checkUserNamespaces(ctx context.Context, spec Spec) error {
	policy, err := m.handlerPolicy(spec)
	if err != nil || m.opts.CheckUserNamespaces == nil {
		return err
	}
	if wants, err := wantsUserNamespace(spec, policy); err != nil || !wants {
		return err
	}
	return m.opts.CheckUserNamespaces(ctx, m.handlerName(spec))
}

// Lease is how asking the pool for a pod's ids went.
type Lease struct {
	Pod Metadata
	// Range is what the pod got.
	Range idpool.Range
	// Took is without the commit.
	Took time.Duration
	// Conflict is why the pod did not get the mapping that was requested, also when it got another.
	Conflict error
	// Err is why the pod got no range, nil when it did.
	Err error
}

// errNotRecorded is why a pod has no range although the pool gave it one: the transaction failed.
var errNotRecorded = errors.New("the range was not recorded")

// observe tells of a lease when it is certain: at once of one that failed, and else when the transaction ends.
func (m *Manager) observe(tx *state.Tx, l Lease) {
	switch {
	case m.opts.ObserveLease == nil:
	case l.Err != nil:
		m.opts.ObserveLease(l)
	default:
		tx.OnCommit(func() { m.opts.ObserveLease(l) })
		tx.OnRollback(func() {
			l.Range, l.Err = idpool.Range{}, errNotRecorded
			m.opts.ObserveLease(l)
		})
	}
}

// observeUnseen tells of a pod that gets no range because nobody could look whether one that rests may be had: for the pool's operator
// it was refused by the pool.
func (m *Manager) observeUnseen(spec Spec, why error) {
	if m.opts.ObserveLease != nil {
		m.opts.ObserveLease(Lease{Pod: spec.Metadata, Err: why})
	}
}

// handlerPolicy returns the user namespace policy of the spec's runtime handler.
func (m *Manager) handlerPolicy(spec Spec) (UserNamespacePolicy, error) {
	name := m.handlerName(spec)
	policy, ok := m.opts.UserNamespaces[name]
	if !ok {
		return "", fmt.Errorf("%w %q", ErrUnknownHandler, name)
	}
	return policy, nil
}

// wantsUserNamespace decides by the pod's wish and the handler's policy. Pods that use the
// host's PID or IPC namespace cannot have a user namespace and are left out of "always".
func wantsUserNamespace(spec Spec, policy UserNamespacePolicy) (bool, error) {
	asked := spec.Namespaces.User != nil
	switch policy {
	case UserNamespacesNever:
		if asked {
			return false, fmt.Errorf("%w: %q", ErrNoUserNamespaces, spec.RuntimeHandler)
		}
		return false, nil
	case UserNamespacesAlways:
		possible := spec.Namespaces.PID != ModeNode && spec.Namespaces.IPC != ModeNode
		return asked || possible, nil
	}
	return asked, nil
}

// lease takes the pod's host ids inside the transaction that records the sandbox, and notes them in the record:
// none for a pod in the host's user namespace. Until somebody has looked at what became of the ranges that
// stand in the way, an error for which idpool.NeedsScan is true asks for that.
func (m *Manager) lease(ctx context.Context, tx *state.Tx, rec *Record, looked bool) error {
	policy, err := m.handlerPolicy(rec.Spec)
	if err != nil {
		return err
	}
	if wants, err := wantsUserNamespace(rec.Spec, policy); err != nil || !wants {
		return err
	}
	began := time.Now()
	r, conflict, err := m.leaseRange(ctx, tx, *rec, looked)
	if idpool.NeedsScan(err) && !looked {
		return err // not the last word
	}
	m.observe(tx, Lease{Pod: rec.Spec.Metadata, Range: r, Took: time.Since(began), Conflict: conflict, Err: err})
	if err != nil {
		return err
	}
	rec.Range = &r
	if conflict != nil {
		rec.Remapped = conflict.Error()
	}
	return nil
}

// leaseRange gives the pod what its annotations ask for, else claims what the client requests, else takes a range
// of the pool's own.
func (m *Manager) leaseRange(ctx context.Context, tx *state.Tx, rec Record, looked bool) (r idpool.Range, conflict, err error) {
	bucket, pod, ask := tx.Raw(PoolBucket), idpool.PodUID(rec.Spec.Metadata.UID), rec.Spec.IDs
	requested := rec.Requested()
	if ask.Reservation != "" {
		if r, err = m.opts.Pool.Join(bucket, ask.Reservation, rec.ID); err != nil {
			err = errors.Join(ErrReservation, err)
		}
		return r, nil, err
	}
	if err := m.checkUID(rec); err != nil {
		return idpool.Range{}, nil, err
	}
	switch {
	case requested == nil || ask.Count != 0 && ask.Count != requested.Length:
		r, err = m.opts.Pool.Acquire(bucket, pod, rec.ID, cmp.Or(ask.Count, idsPerPod))
		return r, nil, err
	}
	err = m.opts.Pool.Claim(bucket, pod, rec.ID, *requested)
	if err == nil || !idpool.Remappable(err) || idpool.NeedsScan(err) && !looked {
		return *requested, nil, err
	}
	err = m.noteEnded(err)
	r, acquireErr := m.remap(ctx, bucket, rec, err)
	return r, err, acquireErr
}

// checkUID refuses a pod whose UID another pod has that holds a range: the pool knows pods by their UID, which the client makes up, and
// would let the two share. Kubernetes gives each UID out once; who copies a file for crictl does not.
func (m *Manager) checkUID(rec Record) error {
	md := rec.Spec.Metadata
	held, _ := m.opts.Pool.OfPod(idpool.PodUID(md.UID))
	for _, id := range held.Sandboxes {
		if other, ok := m.table.Find(id); ok && !other.Spec.Metadata.samePod(md) {
			return fmt.Errorf("UID %s is that of pod %s/%s (sandbox %s), which would share its ids; give each pod a UID of its own: %w",
				md.UID, other.Spec.Metadata.Namespace, other.Spec.Metadata.Name, id, idpool.ErrInvalid)
		}
	}
	return nil
}

// ErrHolderEnded is in a conflict whose other pod has ended: its sandboxes are stopped. That is no disagreement about ids. kubelet
// gives them to another pod as soon as its own has ended, and removes the sandbox up to a minute later.
var ErrHolderEnded = errors.New("the sandbox has stopped and was not removed")

// noteEnded adds ErrHolderEnded to the conflicts that it is about.
func (m *Manager) noteEnded(err error) error {
	var conflict *idpool.ConflictError
	if !errors.As(err, &conflict) || conflict.Holder.State != idpool.StateAllocated || len(conflict.Holder.Sandboxes) == 0 {
		return err
	}
	for _, id := range conflict.Holder.Sandboxes {
		if holder, getErr := m.table.Get(id); getErr != nil || holder.Phase != PhaseStopped {
			return err
		}
	}
	return fmt.Errorf("%w: %w", err, ErrHolderEnded)
}

// remap gives the pod another range than the one that could not be claimed, where policy allows that: loudly, since
// kubelet will not learn of it, unless that is what happens with kubelet now and then. A length that the pool cannot give, which only permissive claims have, is rounded up.
func (m *Manager) remap(ctx context.Context, bucket *state.Raw, rec Record, conflict error) (idpool.Range, error) {
	if m.opts.RejectConflicts {
		return idpool.Range{}, errors.Join(ErrConflict, conflict)
	}
	want := rec.Requested()
	ids := (uint64(want.Length) + idpool.Unit - 1) / idpool.Unit * idpool.Unit
	r, err := m.opts.Pool.Acquire(bucket, idpool.PodUID(rec.Spec.Metadata.UID), rec.ID, uint32(min(ids, 1<<32-idpool.Unit)))
	if err != nil {
		return idpool.Range{}, fmt.Errorf("%w; acquire instead: %w", conflict, err)
	}
	logger := klog.FromContext(ctx).WithValues("sandbox", rec.ID,
		"pod", klog.KRef(rec.Spec.Metadata.Namespace, rec.Spec.Metadata.Name), "requested", *want, "range", r)
	if errors.Is(conflict, ErrHolderEnded) {
		logger.Info("Pod remapped to another range", "reason", conflict.Error())
	} else {
		logger.Error(conflict, "Pod remapped to another range")
	}
	return r, nil
}
