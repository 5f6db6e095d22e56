package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// install puts the plugin where the daemon starts it from, with its directory for a configuration. When the test
// ends the daemon is started without it, which is no trace of a pod.
func install(t *testing.T, n *nodetest.Node) *nriPlugin {
	t.Helper()
	p := newPlugin(t)
	configs := filepath.Join(n.Daemon.NRI, "conf.d")
	for _, dir := range []string{n.Daemon.NRIPlugins(), configs} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(shared.programs(t).plugin)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(n.Daemon.NRIPlugins(), "20-installed")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(n.Daemon.Stop(ctx), os.Remove(path), n.Daemon.Start(ctx)); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(configs, "20-installed.conf"), []byte(p.dir), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}
