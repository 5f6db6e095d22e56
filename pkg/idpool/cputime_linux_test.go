package idpool

import (
	"syscall"
	"testing"
	"time"
)

// CPUTime returns what this process has used of the processors, which a busy
// machine stretches far less than the time that passes.
func CPUTime(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
