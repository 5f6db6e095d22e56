package main

import (
	"errors"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// observeLease counts how requests for ids went.
func (d *daemon) observeLease(l sandbox.Lease) {
	d.metrics.ObserveLease(l.Took, conflictWith(l.Conflict), failureReason(l.Err))
}

// failureReason is one of metrics.FailureReasons, empty for no error.
func failureReason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, idpool.ErrFragmented):
		return "fragmented"
	case errors.Is(err, idpool.ErrExhausted):
		return "exhausted"
	case idpool.Remappable(err):
		return "conflict"
	case errors.Is(err, idpool.ErrInvalid), errors.Is(err, sandbox.ErrReservation):
		return "invalid"
	}
	return "io"
}

// conflictWith is one of metrics.ConflictsWith, empty for no conflict.
func conflictWith(err error) string {
	var conflict *idpool.ConflictError
	switch {
	case err == nil:
		return ""
	case errors.Is(err, idpool.ErrPodHolds):
		return "held"
	case errors.Is(err, idpool.ErrForbidden):
		return "host"
	case errors.Is(err, idpool.ErrUnmappable):
		return "kernel"
	case errors.As(err, &conflict) && conflict.Holder.State == idpool.StateQuarantined:
		return "quarantine"
	case errors.As(err, &conflict) && conflict.Holder.State == idpool.StateReserved:
		return "reservation"
	}
	return "pod"
}
