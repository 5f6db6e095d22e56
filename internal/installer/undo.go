package installer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"k8s.io/klog/v2"
)

// Uninstall points kubelet back at the runtime that it had, removes userns-shim's pods and what Install has put on the node.
// Configuration, database and kubelet's host ids stay. It does nothing on a node without userns-shim.
func (i *Installer) Uninstall(ctx context.Context) error {
	switch {
	case i.journal.Phase == phaseNone:
		return nil
	case i.journal.Phase == phaseRemoved && i.journal.Failed == "":
		return nil
	case i.journal.Phase == phaseRemoved:
		i.journal.Failed = ""
		return i.host.writeJournal(i.journal)
	}
	i.journal.Failed = ""
	return i.undo(ctx)
}

// undo takes back what the journal names, as far as it was done. All stages run despite errors of earlier
// ones, with one exception: programs stay while a pod of theirs may be left.
func (i *Installer) undo(ctx context.Context) error {
	var errs []error
	if i.journal.Phase.switched() {
		if err := i.switchBack(ctx); err != nil {
			return err
		}
	}
	errs = append(errs, missingIsDone(i.opts.Systemd.Stop(ctx, Unit)), missingIsDone(i.opts.Systemd.Disable(ctx, Unit)))
	for _, f := range i.journal.Files {
		errs = append(errs, i.host.restore(f))
	}
	if i.journal.NewConfig && i.journal.Phase.unfinished() {
		errs = append(errs, i.host.remove(ConfigPath))
	}
	errs = append(errs, i.opts.Systemd.Reload(ctx))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	i.journal.Phase = phaseRemoved
	return i.host.writeJournal(i.journal)
}

// switchBack gives kubelet its old runtime. userns-shim has to run for its pods to be removed; where it does not, kubelet gets
// its runtime back all the same and the error says what is left.
func (i *Installer) switchBack(ctx context.Context) error {
	if err := i.opts.Systemd.Stop(ctx, kubeletUnit); err != nil {
		return err
	}
	left := i.opts.Runtimes.RemovePods(ctx, i.host.socket(i.opts.Endpoint))
	var errs []error
	for _, edit := range i.journal.Endpoints {
		errs = append(errs, i.host.setEndpoint(edit, edit.Old))
	}
	errs = append(errs, i.startKubelet(ctx))
	if left != nil {
		klog.FromContext(ctx).Error(left, "Pods of userns-shim may be left")
		if i.journal.Phase == phaseInstalled {
			errs = append(errs, fmt.Errorf("remove the pods of userns-shim: %w; start userns-shim and uninstall again", left))
		}
	}
	return errors.Join(errs...)
}

// upgrade replaces programs and unit; the old ones come back when the service does not.
func (i *Installer) upgrade(ctx context.Context) error {
	if i.journal.Version == i.opts.Version && i.sameFiles() {
		return i.await(ctx, "userns-shim", func(ctx context.Context) error {
			return i.opts.Runtimes.Ready(ctx, i.host.socket(i.opts.Endpoint))
		})
	}
	before, err := i.host.remember(i.placed(), replacedDir)
	if err != nil {
		return err
	}
	err = i.placeAll(replacedDir)
	if err == nil {
		err = i.startService(ctx)
	}
	if err == nil {
		i.journal.Version, i.journal.Failed = i.opts.Version, ""
		return i.host.writeJournal(i.journal)
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*i.opts.Timeout)
	defer cancel()
	var errs []error
	for _, f := range before {
		errs = append(errs, i.host.restore(f))
	}
	if undone := errors.Join(append(errs, i.startService(clean))...); undone != nil {
		return errors.Join(err, fmt.Errorf("roll back: %w", undone))
	}
	i.journal.Version, i.journal.Failed = i.opts.Version, err.Error()
	return fmt.Errorf("%w: %w", ErrRolledBack, errors.Join(err, i.host.writeJournal(i.journal)))
}

// missingIsDone takes a service that is not there for one that was stopped.
func missingIsDone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
