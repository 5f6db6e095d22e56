package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/stats"
)

// Containerd stops creating a task when the client that asked for it goes away, and forgets the task. What its shim
// and the OCI runtime had begun by then nobody ends: a shim without a task, a container that only its shim knows,
// processes and a cgroup that only the OCI runtime's files tell of. So a task that containerd does not know is looked
// for in those places before it counts as deleted.

// Cgroups removes cgroups of containers.
type Cgroups interface {
	// Remove kills what is left in a cgroup and removes it. One that is not there is done.
	Remove(ctx context.Context, path string) error
}

// runtimeRoot is where the runc shim lets OCI runtimes keep their state, by namespace and container, unless the
// record's options have another place.
const runtimeRoot = "/run/containerd/runc"

// sweep takes away what an interrupted create left of a task that containerd does not know. A container without
// a record has none: the record is deleted last.
func (e *Engine) sweep(ctx context.Context, t *turn, id string) error {
	rec, err := e.client.ContainerService().Get(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(rec.Spec.GetValue(), &spec); err != nil {
		return fmt.Errorf("read specification: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	opts, err := runtimeOptions(rec)
	if err != nil {
		return err
	}
	state := filepath.Join(cmp.Or(opts.Root, runtimeRoot), e.opts.Namespace, id)
	e.sweepShim(ctx, t, id, state)
	if spec.Linux != nil && spec.Linux.CgroupsPath != "" {
		if err := e.opts.Cgroups.Remove(ctx, stats.CgroupPath(spec.Linux.CgroupsPath)); err != nil {
			return err
		}
	}
	return removeState(state)
}

// sweepShim deletes a task that perhaps only its shim knows. An error is no reason to stop: the shim is in the way of
// nothing that follows.
func (e *Engine) sweepShim(ctx context.Context, t *turn, id, state string) {
	logger := klog.FromContext(ctx)
	if _, err := os.Stat(state); err == nil {
		logger.Info("Removing what an interrupted create left of a task", "container", id, "group", t.name)
	} else {
		// Containerd may have had the OCI runtime delete the container: then the shim alone keeps it, and does not end. Or
		// there is nothing, and a shim that is busy need not be waited for.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, endedTimeout)
		defer cancel()
	}
	if err := e.deleteInShim(ctx, t.name, id); err != nil {
		logger.Error(err, "Shim does not delete a task that containerd does not know", "container", id)
	}
}

// deleteInShim kills and deletes a task in its group's shim. It tries again, because containerd may just be removing the
// bundle: the OCI runtime, which logs there, fails then.
func (e *Engine) deleteInShim(ctx context.Context, group, id string) (err error) {
	pauses := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Steps: 4}
	_ = wait.ExponentialBackoffWithContext(ctx, pauses, func(ctx context.Context) (bool, error) {
		err = e.tryDeleteInShim(ctx, group, id)
		return err == nil || errors.Is(err, context.DeadlineExceeded), nil
	})
	return err
}

func (e *Engine) tryDeleteInShim(ctx context.Context, group, id string) error {
	shim, err := e.dialShim(ctx, group)
	if err != nil || shim == nil {
		return err
	}
	return errors.Join(shim.deleteTask(ctx, id), shim.close())
}

// shutDownShim tells a group's shim to end, which it does when it has no task. Where none listens there is
// nothing to do.
func (e *Engine) shutDownShim(ctx context.Context, group string) error {
	shim, err := e.dialShim(ctx, group)
	if err != nil || shim == nil {
		return err
	}
	return errors.Join(shim.shutDown(ctx), shim.close())
}

// removeState removes the OCI runtime's own directory of a container that is no more. It holds files, FIFOs and
// sockets, and no directories.
func removeState(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the runtime's state: %w", err)
	}
	for _, entry := range entries {
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
