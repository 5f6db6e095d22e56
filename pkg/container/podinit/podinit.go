// Package podinit runs the first process of a PID namespace that the containers of a pod share,
// as a containerd task of the sandbox's own id. It is the sandbox.Process of the daemon.
//
// The process is no container: it has no image, no snapshot and no log, and CRI never shows it. It
// stands beside package container because it is made of the same parts, an OCI specification, a
// record and a task in the pod's shim; it knows nothing of containers. What the program does is
// cmd/userns-shim-init's business.
//
// Its root filesystem is one directory for all pods, in which everything is empty; the program is
// mounted from where it is installed. So no pod has a copy, and all share its pages.
package podinit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// Records creates and deletes container records in containerd. A missing one is an error that
// wraps errdefs.ErrNotFound.
type Records interface {
	CreateRecord(ctx context.Context, rec container.EngineRecord) error
	DeleteRecord(ctx context.Context, id string) error
}

// Tasks runs processes; container.Tasks says how.
type Tasks interface {
	CreateTask(ctx context.Context, group, id string, io container.Stdio) (pid uint32, err error)
	StartTask(ctx context.Context, id string) error
	WaitTask(ctx context.Context, id string) (container.Exit, error)
	KillTask(ctx context.Context, id string, signal uint32, all bool) error
	DeleteTask(ctx context.Context, group, id string) (container.Exit, error)
}

// Pins holds PID namespaces and watches their processes, each named by its number and the id that
// its cgroup carries; package ns does it for real.
type Pins interface {
	PinPID(pid int, id, path string) error
	UnpinPID(path string) error
	CheckPID(pid int, id, path string) error
	AwaitExit(ctx context.Context, pid int, id string) error
}

// Options are what a Runner needs; all fields are required.
type Options struct {
	Records Records
	Tasks   Tasks
	Pins    Pins
	// Program is the path of userns-shim-init.
	Program  string
	StateDir string
	// Handlers are the runtime handlers by name; DefaultHandler serves sandboxes that name none.
	Handlers       map[string]container.Handler
	DefaultHandler string
	Host           ocispec.Host
	SystemdCgroup  bool
}

// Runner starts, watches and stops the processes. It keeps no state.
type Runner struct {
	opts Options
}

var _ sandbox.Process = (*Runner)(nil)

// New returns a Runner. A missing program is no error here: pods that do not share a PID namespace
// run without it.
func New(opts Options) (*Runner, error) {
	if opts.Program == "" || opts.StateDir == "" {
		return nil, errors.New("pod init: program and state directory are required")
	}
	return &Runner{opts: opts}, nil
}

// Ready looks for the program.
func (r *Runner) Ready() error {
	const remedy = "install userns-shim-init beside userns-shim, or set sandboxInit in the configuration to its path"
	info, err := os.Stat(r.opts.Program)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w: %s", sandbox.ErrNoProcess, err, remedy)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o001 == 0:
		// The pod's ids are nobody's on the host.
		return fmt.Errorf("%w: %s is no file that every user may execute (%s): %s",
			sandbox.ErrNoProcess, r.opts.Program, info.Mode(), remedy)
	}
	return nil
}

// Check is nil when the process lives in the namespace that rec pins.
func (r *Runner) Check(rec sandbox.Record) error {
	return r.opts.Pins.CheckPID(rec.PID, rec.ID, r.pin(rec.ID))
}

// Wait returns nil once the process has ended.
func (r *Runner) Wait(ctx context.Context, rec sandbox.Record) error {
	return r.opts.Pins.AwaitExit(ctx, rec.PID, rec.ID)
}

func (r *Runner) pin(id string) string { return sandbox.PathsOf(r.opts.StateDir, id).PID }

// rootfs is shared by all processes; nothing in it is writable by any.
func (r *Runner) rootfs() string { return filepath.Join(r.opts.StateDir, "init") }

func (r *Runner) handler(rec sandbox.Record) (container.Handler, error) {
	name := cmp.Or(rec.Spec.RuntimeHandler, r.opts.DefaultHandler)
	h, ok := r.opts.Handlers[name]
	if !ok {
		return container.Handler{}, fmt.Errorf("%w %q", sandbox.ErrUnknownHandler, name)
	}
	return h, nil
}
