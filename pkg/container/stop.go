package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/signal"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
)

// killTimeout bounds the wait for a process after SIGKILL. One that survives it hangs in the
// kernel, and the caller may try again.
const killTimeout = 2 * time.Minute

// killAgain is the pause between two SIGKILLs.
const killAgain = time.Second

// killSignal is SIGKILL's number, the same on every architecture of Linux.
const killSignal = 9

func isNotFound(err error) bool { return errors.Is(err, errdefs.ErrNotFound) }

// Stop sends the container's stop signal, waits for at most grace, and kills all its processes.
// It returns once the exit is recorded. A container that does not run is stopped already. When it
// returns plugins know of it too. As on containerd, the signal is sent once: a Stop beside or after
// another only waits for its own grace, so a shorter one shortens what is left of a longer.
func (m *Manager) Stop(ctx context.Context, id string, grace time.Duration) error {
	rec, err := m.Get(id)
	if err != nil {
		return err
	}
	if err := m.stop(ctx, rec, grace); err != nil {
		return err
	}
	if rec, err = m.Get(rec.ID); err == nil && rec.State == StateExited {
		m.tell(ctx, StepStopped, rec)
	}
	return nil
}

// Evict kills a container that a plugin wants gone.
func (m *Manager) Evict(ctx context.Context, id string) error {
	rec, err := m.Get(id)
	if err != nil {
		return err
	}
	return m.stop(ctx, rec, 0)
}

func (m *Manager) stop(ctx context.Context, rec Record, grace time.Duration) error {
	p := m.process(rec.ID)
	if p == nil {
		return nil
	}
	if grace > 0 {
		if err := m.signalOnce(ctx, rec, p); err != nil {
			return err
		}
		if waitFor(ctx, p, grace) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stop container %s: %w", rec.ID, ctx.Err())
		}
		klog.FromContext(ctx).V(2).Info("Container outlived its grace period", "container", rec.ID, "grace", grace)
	}
	return m.forceStop(ctx, rec, p)
}

// signalOnce sends the stop signal unless that was done before.
func (m *Manager) signalOnce(ctx context.Context, rec Record, p *process) error {
	if !p.signalled.CompareAndSwap(false, true) {
		return nil
	}
	err := m.kill(ctx, rec, false)
	if err != nil {
		p.signalled.Store(false)
	}
	return err
}

// forceStop kills every process of the container and waits for the exit. It kills again and
// again, because a container that is just being started may have no process yet.
func (m *Manager) forceStop(ctx context.Context, rec Record, p *process) error {
	for deadline := time.Now().Add(killTimeout); time.Now().Before(deadline); {
		if err := m.kill(ctx, rec, true); err != nil {
			return err
		}
		if waitFor(ctx, p, killAgain) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stop container %s: %w", rec.ID, ctx.Err())
		}
	}
	return fmt.Errorf("stop container %s: its process is still there after SIGKILL: %w", rec.ID, context.DeadlineExceeded)
}

func (m *Manager) kill(ctx context.Context, rec Record, force bool) error {
	number := uint32(killSignal)
	if !force {
		sig, err := signal.ParseSignal(rec.StopSignal)
		if err != nil {
			return fmt.Errorf("stop container %s: %w: stop signal %q", rec.ID, ErrInvalid, rec.StopSignal)
		}
		number = uint32(sig)
	}
	if err := m.opts.Tasks.KillTask(ctx, rec.ID, number, force); err != nil && !isNotFound(err) {
		return fmt.Errorf("stop container %s: %w", rec.ID, err)
	}
	return nil
}

// waitFor says whether the exit was recorded in time.
func waitFor(ctx context.Context, p *process, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// StopAll kills what runs in a sandbox, all containers at once and without grace: kubelet
// has stopped each by then. The sandbox can start no container afterwards, so its idmapped
// layers are let go too.
func (m *Manager) StopAll(ctx context.Context, sandboxID string) error {
	var group errgroup.Group
	for _, rec := range m.of(sandboxID) {
		if p := m.process(rec.ID); p != nil {
			group.Go(func() error { return m.forceStop(ctx, rec, p) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	m.opts.Rootfs.Forget(sandboxID)
	return nil
}
