package container

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/stats"
)

// refusedError means that the engine was asked to run the container's process and said no. Its text is the
// engine's.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// refusal marks an error that says that this container cannot run: its program is missing or no
// program, its working directory cannot be entered. That the engine is away, late or was told to stop says nothing of
// the container.
func refusal(err error) error {
	for _, other := range []error{nil, errdefs.ErrUnavailable, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, other) {
			return err
		}
	}
	return refusedError{err}
}

// startReason tells kubelet apart what it treats apart: a container that cannot run has no log to
// look for the reason in.
func startReason(err error) string {
	if errors.As(err, new(refusedError)) {
		return ReasonCannotRun
	}
	return ReasonStartError
}

// reason is that of an exit. As on containerd, a kill for want of memory is named whichever process of the
// container it met.
func (m *Manager) reason(id string, exit Exit) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	switch {
	case m.oom[id]:
		return ReasonOOMKilled
	case exit.Code == 0:
		return ReasonCompleted
	}
	return ReasonError
}

// NoteOOM records that the kernel killed a process of the container for lack of memory.
func (m *Manager) NoteOOM(id string) {
	if !m.table.Has(id) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.oom[id] = true
}

func (m *Manager) forgetOOM(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.oom, id)
}

// lookForOOM asks the cgroup, which is there until the task is deleted: the engine's event can come after the
// exit, and is lost while nobody listens.
func (m *Manager) lookForOOM(rec Record) {
	sb, err := m.opts.Sandbox(rec.SandboxID)
	if err != nil {
		return // events have to do
	}
	path, err := ocispec.CgroupsPath(m.cgroupDriver(), sb.Spec.CgroupParent, rec.ID)
	if err == nil && m.opts.Cgroups.OOMKilled(stats.CgroupPath(path)) {
		m.NoteOOM(rec.ID)
	}
}
