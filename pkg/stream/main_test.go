package stream

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when a test leaves a goroutine behind: each has an owner that waits.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}
