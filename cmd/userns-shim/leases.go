package main

import (
	"errors"
	"time"

	"github.com/userns-shim/userns-shim/internal/statusz"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// observeLease counts how requests for ids went, and notes them for the status page.
func (d *daemon) observeLease(l sandbox.Lease) {
	d.metrics.ObserveLease(l.Took, conflictWith(l.Conflict), failureReason(l.Err))
	e := statusz.Event{At: time.Now(), Namespace: l.Pod.Namespace, Pod: l.Pod.Name}
	if l.Conflict != nil {
		e.Kind, e.Detail = statusz.Conflict, l.Conflict.Error()
		d.history.Add(e)
	}
	if l.Err != nil {
		e.Kind, e.Detail = statusz.Failed, l.Err.Error()
	} else {
		e.Kind, e.Detail, e.Range = statusz.Allocated, "", l.Range.String()
	}
	d.history.Add(e)
}

// observeRelease notes what a sandbox gave back.
func (d *daemon) observeRelease(pod sandbox.Metadata, r idpool.Range) {
	d.history.Add(statusz.Event{At: time.Now(), Kind: statusz.Released, Namespace: pod.Namespace, Pod: pod.Name, Range: r.String()})
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
	case errors.Is(err, sandbox.ErrHolderEnded):
		return "ended"
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
