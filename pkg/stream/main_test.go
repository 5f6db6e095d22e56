package stream

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails when a goroutine of this package, or of the protocols that it serves,
// outlives the tests: each has an owner that waits.
func TestMain(m *testing.M) {
	code := m.Run()
	var left []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if left = leftBehind(); len(left) == 0 {
			os.Exit(code)
		}
	}
	fmt.Fprintf(os.Stderr, "goroutines left behind:\n\n%s\n", strings.Join(left, "\n\n"))
	os.Exit(1)
}

// leftBehind returns the stacks that a leak would show. Those of client-go are not
// ours: its WebSocket client leaves goroutines when its context is cancelled.
func leftBehind() []string {
	buf := make([]byte, 16<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	var left []string
	for _, s := range stacks[1:] { // the first is this one
		if strings.Contains(s, "k8s.io/client-go/") {
			continue
		}
		for _, owner := range []string{"/pkg/stream.", "/pkg/stream/", "k8s.io/cri-streaming/", "k8s.io/streaming/", "spdystream."} {
			if strings.Contains(s, owner) {
				left = append(left, s)
				break
			}
		}
	}
	return left
}
