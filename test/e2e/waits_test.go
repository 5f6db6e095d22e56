package e2e

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s still not: %s", what)
		}
	}
}

// awaitSteady waits until a number that has begun to grow stands still for a second, and returns it.
func awaitSteady(t *testing.T, what string, read func() int) int {
	t.Helper()
	last, since := 0, time.Now()
	eventually(t, what, func() bool {
		if now := read(); now != last {
			last, since = now, time.Now()
		}
		return last > 0 && time.Since(since) > time.Second
	})
	return last
}

// awaitFile waits until a file of the host is there.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	for range 1000 {
		_, err := os.Stat(path)
		if err == nil {
			return
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not appear", path)
}

// awaitReady waits until CRI says that the runtime is ready.
func awaitReady(t *testing.T, n *nodetest.Node) {
	t.Helper()
	for range 500 {
		if ok, _ := condition(t, n, runtimeapi.RuntimeReady); ok {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the runtime does not become ready")
}
