package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// teardownTimeout bounds the cleanup after a sandbox that could not be made.
const teardownTimeout = 30 * time.Second

// Run makes the sandbox that spec describes and returns its record once it is ready. The same
// name with the same spec returns the sandbox that exists; with another spec, or while the
// first request is still under way, it is ErrExists.
func (m *Manager) Run(ctx context.Context, spec Spec) (Record, error) {
	if err := validate(spec); err != nil {
		return Record{}, err
	}
	if spec.Namespaces.PID == ModePod {
		if err := m.opts.Process.Ready(); err != nil {
			return Record{}, err
		}
	}
	err := m.checkUserNamespaces(ctx, spec)
	if err == nil {
		err = m.checkIDRequest(spec)
	}
	if err != nil {
		return Record{}, fmt.Errorf("run sandbox %s/%s: %w", spec.Metadata.Namespace, spec.Metadata.Name, err)
	}
	rec, existed, err := m.reserve(ctx, spec)
	if err != nil || existed {
		return rec, err
	}
	m.locks.Lock(rec.ID)
	defer m.locks.Unlock(rec.ID)
	if err = m.label(&rec); err == nil {
		var ready Record
		if ready, err = m.bringUp(ctx, rec); err == nil {
			return ready, nil
		}
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), teardownTimeout)
	defer cancel()
	return Record{}, errors.Join(err, m.remove(clean, rec))
}

// validate refuses what would fail half-way.
func validate(spec Spec) error {
	own := ns.Own{
		Network: spec.Namespaces.Network != ModeNode,
		IPC:     spec.Namespaces.IPC != ModeNode,
		UTS:     spec.Namespaces.Network != ModeNode,
	}
	if _, err := ocispec.SELinuxOptions(spec.SELinux); err != nil {
		return err
	}
	for name := range spec.Sysctls {
		if err := ns.ValidateSysctl(name, own); err != nil {
			return err
		}
	}
	return nil
}

// reserve commits the name, the range and the record of a sandbox to be. Where a resting range stands in the
// way of which nobody knows whether it is still in use, the node is looked at and the pool asked again.
func (m *Manager) reserve(ctx context.Context, spec Spec) (rec Record, existed bool, err error) {
	rec = Record{
		ID:        state.NewID(),
		Spec:      spec,
		Phase:     PhaseCreating,
		CreatedAt: m.creationTime(spec.Metadata),
		BootID:    m.opts.BootID,
		NetworkUp: spec.Namespaces.Network != ModeNode,
		ProcessUp: spec.Namespaces.PID == ModePod,
	}
	existed, err = m.tryReserve(ctx, &rec, false)
	if idpool.NeedsScan(err) {
		refused := err
		if err = m.opts.Look(ctx); err == nil {
			m.opts.Pool.Review()
			existed, err = m.tryReserve(ctx, &rec, true)
		} else {
			m.observeUnseen(spec, errors.Join(refused, err))
		}
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("reserve sandbox %s/%s: %w", spec.Metadata.Namespace, spec.Metadata.Name, err)
	}
	return rec, existed, nil
}

// tryReserve does it in one transaction. It replaces rec by the sandbox that exists.
func (m *Manager) tryReserve(ctx context.Context, rec *Record, looked bool) (existed bool, err error) {
	err = m.opts.DB.Update(func(tx *state.Tx) error {
		holder, err := m.reserveName(tx, *rec)
		if err != nil || holder != nil {
			if holder != nil {
				*rec, existed = *holder, true
			}
			return err
		}
		if err = m.lease(ctx, tx, rec, looked); err != nil {
			return err
		}
		if rec.ShimGroup, err = m.shimGroup(tx, *rec); err != nil {
			return err
		}
		return m.table.Put(tx, *rec)
	})
	return existed, err
}

// creationTime is now, or just after the pod's latest sandbox where the clock was set back since
// then: kubelet takes the latest for the pod's present one.
func (m *Manager) creationTime(md Metadata) time.Time {
	now := m.opts.Clock.Now().Round(0) // without it, times of one run compare by a clock that is never set
	for _, rec := range m.table.All() {
		if rec.Spec.Metadata.samePod(md) && !now.After(rec.CreatedAt) {
			now = rec.CreatedAt.Add(time.Nanosecond)
		}
	}
	return now
}

// bringUp takes a reserved sandbox to PhaseReady. What it leaves behind on an error is removed
// by its caller.
func (m *Manager) bringUp(ctx context.Context, rec Record) (Record, error) {
	// 0711: in-pod root is not host root and has to reach the files below.
	if err := os.MkdirAll(m.Paths(rec.ID).Dir, 0o711); err != nil {
		return Record{}, fmt.Errorf("make sandbox directory: %w", err)
	}
	up := rec
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := m.makeFiles(rec); err != nil {
			return err
		}
		return m.relabelFiles(rec)
	})
	group.Go(func() (err error) {
		if up.Pins, err = m.makeNamespaces(gctx, up); err != nil {
			return err
		}
		return m.populate(gctx, &up)
	})
	if err := group.Wait(); err != nil {
		return Record{}, fmt.Errorf("bring up sandbox %s: %w", rec.ID, err)
	}
	rec = up
	rec.Phase = PhaseReady
	if err := m.publishReady(ctx, rec); err != nil {
		return Record{}, err
	}
	m.watch(rec)
	m.notify(EventCreated, rec)
	m.notify(EventStarted, rec)
	klog.FromContext(ctx).V(2).Info("Pod sandbox ready", "sandbox", rec.ID,
		"pod", klog.KRef(rec.Spec.Metadata.Namespace, rec.Spec.Metadata.Name), "range", rec.rangeText())
	return rec, nil
}

// populate attaches the namespaces to the network and starts the pod's process in them, side by
// side: neither needs the other.
func (m *Manager) populate(ctx context.Context, up *Record) error {
	rec := *up
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		up.IPs, err = m.attach(gctx, rec)
		return err
	})
	group.Go(func() (err error) {
		up.PID, err = m.startProcess(gctx, rec)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if up.PID != 0 {
		up.Pins.PID = m.Paths(up.ID).PID
	}
	return nil
}

func (m *Manager) makeNamespaces(ctx context.Context, rec Record) (ns.Pins, error) {
	req := m.namespaceRequest(rec)
	req.Sysctls, _ = ns.SplitSysctls(m.sysctls(rec))
	pins, err := m.opts.Namespaces.Create(ctx, req)
	if err != nil {
		return ns.Pins{}, fmt.Errorf("make namespaces: %w", err)
	}
	return pins, nil
}

// attach connects the pod to its network. The network's sysctls come after CNI ADD: those of
// an interface exist only then, and plugins overwrite some.
func (m *Manager) attach(ctx context.Context, rec Record) ([]netip.Addr, error) {
	if !rec.NetworkUp {
		return nil, nil
	}
	result, err := m.opts.Network.Setup(ctx, networkPod(rec))
	if err != nil {
		return nil, fmt.Errorf("set up network: %w", err)
	}
	_, late := ns.SplitSysctls(m.sysctls(rec))
	if err := m.opts.Namespaces.WriteSysctls(ctx, rec.Pins, m.namespaceRequest(rec).User, late); err != nil {
		return nil, fmt.Errorf("write network sysctls: %w", err)
	}
	return result.IPs, nil
}
