// Package installer puts userns-shim on a node, points kubelet at it, and takes both back: when the node does not become
// ready, or when it is told to. What it is about to change is written down before, so that an interrupted
// run is undone by the next one. It works below a root directory, which can be a node's file system that is mounted into a
// container. It decides nothing about the cluster: draining and uncordoning the node is its operator's part.
package installer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"
)

// Unit is the name of the service, and kubeletUnit that of kubelet's.
const (
	Unit        = "userns-shim.service"
	kubeletUnit = "kubelet.service"
)

// Systemd starts and stops services of the node. Each call returns when the service has done so.
type Systemd interface {
	Reload(ctx context.Context) error
	Enable(ctx context.Context, unit string) error
	Disable(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
}

// Runtimes speaks CRI to a runtime, by the path of its socket.
type Runtimes interface {
	// Ready tells why the runtime is not ready to run pods.
	Ready(ctx context.Context, socket string) error
	// RemovePods stops and removes all pods.
	RemovePods(ctx context.Context, socket string) error
}

// Options describe what is installed where. All paths but Source are those that the node has, without Root.
type Options struct {
	// Root is the node's root directory.
	Root string
	// Source is the directory of the programs to install.
	Source string
	// BinDir receives them.
	BinDir string
	// Version names them.
	Version string
	// ServiceFile is the systemd unit, with the programs in BinDir.
	ServiceFile []byte
	// Config is the configuration of a node that has none.
	Config []byte
	// Endpoint is where userns-shim listens.
	Endpoint string
	// KubeletConfig is kubelet's configuration file.
	KubeletConfig string
	// Timeout bounds each wait for a daemon.
	Timeout time.Duration
	// Settle is how long kubelet has to stay healthy.
	Settle time.Duration
	// Retry installs a version that was taken back before.
	Retry bool

	Systemd  Systemd
	Runtimes Runtimes
	// GiveIDs makes the user kubelet with its host ids, where that is missing.
	GiveIDs func(ctx context.Context) error
	// Check is the last word on userns-shim before kubelet is pointed at it.
	Check func(ctx context.Context) error
	// KubeletHealthy tells why kubelet is not.
	KubeletHealthy func(ctx context.Context) error
}

// Installer installs and uninstalls userns-shim on one node. Its methods are not safe for concurrent use.
type Installer struct {
	opts    Options
	host    host
	journal journal
}

var (
	// ErrRolledBack is wrapped by errors after which the node is as it was before.
	ErrRolledBack = errors.New("rolled back")
	// ErrFailedBefore says that this version was taken back on this node: each attempt ends the node's pods, so the
	// next one is for somebody who has looked.
	ErrFailedBefore = errors.New("this version was rolled back on this node before")
)

// New reads what earlier runs have written down.
func New(opts Options) (*Installer, error) {
	i := &Installer{opts: opts, host: host{root: opts.Root}}
	if err := i.host.readJournal(&i.journal); err != nil {
		return nil, err
	}
	return i, nil
}

// Install brings the node to this version. On a node that has another version it replaces programs and unit and
// restarts the service, under which pods live on. Otherwise it switches kubelet over. The error wraps
// ErrRolledBack when the node is as it was before.
func (i *Installer) Install(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	if i.journal.Phase.unfinished() {
		logger.Info("Undoing an installation that was interrupted", "phase", i.journal.Phase)
		if err := i.undo(ctx); err != nil {
			return fmt.Errorf("undo the installation that was interrupted: %w", err)
		}
	}
	if err := i.journal.refusal(i.opts.Version); err != nil && !i.opts.Retry {
		return err
	}
	if i.journal.Phase == phaseInstalled {
		return i.upgrade(ctx)
	}
	edits, err := i.host.planEndpoint(i.opts.KubeletConfig)
	if err != nil {
		return err
	}
	files, err := i.host.remember(i.placed(), backupDir)
	if err != nil {
		return err
	}
	configured, err := i.host.read(ConfigPath)
	if err != nil {
		return err
	}
	i.journal = journal{Version: i.opts.Version, Phase: phaseFiles, Files: files, NewConfig: configured == nil, Endpoints: edits}
	if err := i.install(ctx); err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*i.opts.Timeout)
		defer cancel()
		logger.Error(err, "Rolling back")
		i.journal.Failed = err.Error()
		if undone := i.undo(clean); undone != nil {
			return errors.Join(err, fmt.Errorf("roll back: %w", undone))
		}
		return fmt.Errorf("%w: %w", ErrRolledBack, err)
	}
	return nil
}

// install is what is undone when it fails.
func (i *Installer) install(ctx context.Context) error {
	if err := i.host.writeJournal(i.journal); err != nil {
		return err
	}
	if err := i.placeAll(backupDir); err != nil {
		return err
	}
	if err := i.opts.GiveIDs(ctx); err != nil {
		return fmt.Errorf("give kubelet host ids: %w", err)
	}
	if err := i.startService(ctx); err != nil {
		return err
	}
	if err := i.opts.Check(ctx); err != nil {
		return fmt.Errorf("check pods of userns-shim: %w", err)
	}
	if err := i.switchOver(ctx); err != nil {
		return err
	}
	i.journal.Phase = phaseInstalled
	return i.host.writeJournal(i.journal)
}

func (i *Installer) startService(ctx context.Context) error {
	if err := i.opts.Systemd.Reload(ctx); err != nil {
		return err
	}
	if err := i.opts.Systemd.Enable(ctx, Unit); err != nil {
		return err
	}
	return i.restartService(ctx)
}

func (i *Installer) restartService(ctx context.Context) error {
	if err := i.opts.Systemd.Restart(ctx, Unit); err != nil {
		return err
	}
	return i.await(ctx, "userns-shim", func(ctx context.Context) error {
		return i.opts.Runtimes.Ready(ctx, i.host.socket(i.opts.Endpoint))
	})
}

// switchOver lets kubelet stop, removes what the other runtime still has, and starts kubelet with this one.
func (i *Installer) switchOver(ctx context.Context) error {
	i.journal.Phase = phaseSwitching
	if err := i.host.writeJournal(i.journal); err != nil {
		return err
	}
	if err := i.opts.Systemd.Stop(ctx, kubeletUnit); err != nil {
		return err
	}
	if old := i.journal.oldEndpoint(); old != i.opts.Endpoint {
		if err := i.opts.Runtimes.RemovePods(ctx, i.host.socket(old)); err != nil {
			return fmt.Errorf("remove the pods of %s: %w", old, err)
		}
	}
	for _, edit := range i.journal.Endpoints {
		if err := i.host.setEndpoint(edit, i.opts.Endpoint); err != nil {
			return err
		}
	}
	return i.startKubelet(ctx)
}

// startKubelet reloads units too, because the endpoint can be in one.
func (i *Installer) startKubelet(ctx context.Context) error {
	if err := i.opts.Systemd.Reload(ctx); err != nil {
		return err
	}
	if err := i.opts.Systemd.Restart(ctx, kubeletUnit); err != nil {
		return err
	}
	if err := i.await(ctx, "kubelet", i.opts.KubeletHealthy); err != nil {
		return err
	}
	return i.settle(ctx)
}

// settle wants kubelet to stay healthy, for one that cannot use its runtime ends only after some seconds. However long the machine
// lets the installer wait, it asks at the end.
func (i *Installer) settle(ctx context.Context) error {
	end := time.Now().Add(i.opts.Settle)
	for over := i.opts.Settle <= 0; !over; {
		over = !time.Now().Before(end)
		if err := pause(ctx); err != nil {
			return err
		}
		if err := i.opts.KubeletHealthy(ctx); err != nil {
			return fmt.Errorf("kubelet was healthy and is no longer: %w", err)
		}
	}
	return nil
}

// await asks again until the answer is no error.
func (i *Installer) await(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, i.opts.Timeout)
	defer cancel()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // the end of the wait is no reason
			last = err
		}
		if pause(ctx) != nil {
			return fmt.Errorf("%s is not ready after %s: %w", what, i.opts.Timeout, last)
		}
	}
}

// pollInterval is the pause between two questions.
const pollInterval = 250 * time.Millisecond

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pollInterval):
		return nil
	}
}
