package container

import (
	"context"
	"errors"
	"testing"
)

func TestUnderWay(t *testing.T) {
	var u underWay
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.wait(ended, "a"); err != nil {
		t.Errorf("a container without execs is waited for: %v", err)
	}
	first, second, other := u.begin("a"), u.begin("a"), u.begin("b")
	first()
	if err := u.wait(ended, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("with one of two execs ended: %v, want to wait", err)
	}
	done := make(chan error)
	go func() { done <- u.wait(t.Context(), "a") }()
	second()
	if err := <-done; err != nil {
		t.Errorf("with both execs ended: %v", err)
	}
	other()
	if len(u.execs) > 0 {
		t.Errorf("%d containers are kept", len(u.execs))
	}
}
