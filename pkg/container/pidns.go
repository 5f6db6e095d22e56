package container

import (
	"fmt"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// PIDPins holds the PID namespaces of processes, each named by its number and the id that its
// cgroup carries; package ns does it for real.
type PIDPins interface {
	PinPID(pid int, id, path string) error
	// UnpinPID takes a pin that is not there for done.
	UnpinPID(path string) error
}

// pidNamespace is the one that a container joins. PIDPod, which also is what clients send that
// name none, is whatever the sandbox's containers were said to have.
func (m *Manager) pidNamespace(b *build) (ocispec.Namespace, error) {
	switch mode := b.rec.Spec.Namespaces.PID; mode {
	case PIDContainer:
		return ocispec.Namespace{}, nil
	case PIDNode:
		return ocispec.Namespace{Host: true}, nil
	case PIDTarget:
		return ocispec.Namespace{Path: m.Paths(b.rec.ID).PIDNamespace}, nil
	case PIDPod:
		switch b.sb.Spec.Namespaces.PID {
		case sandbox.ModePod:
			if b.sb.Pins.PID == "" { // an empty path would be a namespace of the container's own
				return ocispec.Namespace{}, fmt.Errorf("sandbox %s: its PID namespace is not pinned: %w", b.sb.ID, sandbox.ErrNotReady)
			}
			return ocispec.Namespace{Path: b.sb.Pins.PID}, nil
		case sandbox.ModeNode:
			return ocispec.Namespace{Host: true}, nil
		}
		return ocispec.Namespace{}, nil
	default:
		return ocispec.Namespace{}, fmt.Errorf("%w: PID namespace mode %q", ErrUnsupported, mode)
	}
}

// pinTarget pins the PID namespace of the container that rec targets, so that its start joins no
// other, whatever becomes of the target until then.
func (m *Manager) pinTarget(rec Record) error {
	if rec.Spec.Namespaces.PID != PIDTarget {
		return nil
	}
	target, err := m.target(rec)
	if err != nil {
		return err
	}
	if err := m.opts.PIDPins.PinPID(int(target.PID), target.ID, m.Paths(rec.ID).PIDNamespace); err != nil {
		return fmt.Errorf("target container %s: %w", target.ID, err)
	}
	return nil
}

// target returns the running container of the same sandbox that rec targets.
func (m *Manager) target(rec Record) (Record, error) {
	id := rec.Spec.Namespaces.TargetID
	target, err := m.Get(id)
	if err != nil || target.SandboxID != rec.SandboxID {
		return Record{}, fmt.Errorf("%w: sandbox %s has no target container %q", ErrInvalid, rec.SandboxID, id)
	}
	if target.State != StateRunning {
		return Record{}, fmt.Errorf("target container %s: %w: it is %s", target.ID, ErrState, target.State)
	}
	return target, nil
}

// checkTarget keeps a container from a start that the kernel would refuse with a misleading error.
func (m *Manager) checkTarget(rec Record) error {
	if rec.Spec.Namespaces.PID != PIDTarget {
		return nil
	}
	_, err := m.target(rec)
	return err
}
