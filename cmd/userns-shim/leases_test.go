package main

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/userns-shim/userns-shim/internal/metrics"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

func conflict(s idpool.State) error {
	return fmt.Errorf("claim: %w", &idpool.ConflictError{Holder: idpool.Allocation{State: s}})
}

func TestFailureReason(t *testing.T) {
	for want, err := range map[string]error{
		"":           nil,
		"exhausted":  fmt.Errorf("acquire: %w", &idpool.ExhaustedError{WantIDs: 2, FreeIDs: 1}),
		"fragmented": fmt.Errorf("acquire: %w", &idpool.ExhaustedError{WantIDs: 2, FreeIDs: 3}),
		"conflict":   conflict(idpool.StateAllocated),
		"invalid":    fmt.Errorf("claim: %w", idpool.ErrInvalid),
		"io":         errors.New("disk"),
	} {
		if got := failureReason(err); got != want || want != "" && !slices.Contains(metrics.FailureReasons, got) {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
}

func TestConflictWith(t *testing.T) {
	for want, err := range map[string]error{
		"":            nil,
		"pod":         conflict(idpool.StateAllocated),
		"ended":       fmt.Errorf("%w: %w", conflict(idpool.StateAllocated), sandbox.ErrHolderEnded),
		"quarantine":  conflict(idpool.StateQuarantined),
		"reservation": conflict(idpool.StateReserved),
		"held":        fmt.Errorf("claim: %w", idpool.ErrPodHolds),
		"host":        fmt.Errorf("claim: %w", idpool.ErrForbidden),
		"kernel":      fmt.Errorf("claim: %w", idpool.ErrUnmappable),
	} {
		if got := conflictWith(err); got != want || want != "" && !slices.Contains(metrics.ConflictsWith, got) {
			t.Errorf("%v is with %q, want %q", err, got, want)
		}
	}
}
