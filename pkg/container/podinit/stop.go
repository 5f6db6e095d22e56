package podinit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// stopTimeout bounds the wait for a process after SIGKILL. One that survives it hangs in the
// kernel, and the caller may try again.
const stopTimeout = 30 * time.Second

// killSignal is SIGKILL's number, the same on every architecture of Linux.
const killSignal = 9

// Stop kills the process, and with it whatever is left in the PID namespace, and takes its task,
// its record and the pin away. What is not there is done; it goes on after an error.
func (r *Runner) Stop(ctx context.Context, rec sandbox.Record) error {
	err := r.endTask(ctx, rec.Group(), rec.ID)
	if err == nil {
		// Without its record containerd would not know the task any more.
		err = ignoreNotFound(r.opts.Records.DeleteRecord(ctx, rec.ID))
	}
	if err = errors.Join(err, r.opts.Pins.UnpinPID(r.pin(rec.ID))); err != nil {
		return fmt.Errorf("stop process of sandbox %s: %w", rec.ID, err)
	}
	klog.FromContext(ctx).V(4).Info("Process of pod sandbox stopped", "sandbox", rec.ID)
	return nil
}

func (r *Runner) endTask(ctx context.Context, group, id string) error {
	// Not found says that the process has ended, or that there is no task: either way go on.
	if err := ignoreNotFound(r.opts.Tasks.KillTask(ctx, id, killSignal, false)); err != nil {
		return err
	}
	ended, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if _, err := r.opts.Tasks.WaitTask(ended, id); ignoreNotFound(err) != nil {
		return err
	}
	_, err := r.opts.Tasks.DeleteTask(ctx, group, id)
	return ignoreNotFound(err)
}

func ignoreNotFound(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}
