package e2e

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// wantNRI holds what Status says of NRI.
func wantNRI(t *testing.T, n *nodetest.Node, ready bool, words ...string) {
	t.Helper()
	ok, message := condition(t, n, "NRIReady")
	if ok != ready {
		t.Errorf("NRIReady is %t, %q", ok, message)
	}
	for _, word := range words {
		if !strings.Contains(message, word) {
			t.Errorf("NRIReady says %q, want %q in it", message, word)
		}
	}
}

// TestNRISocketOfAnotherProcess holds that a socket which another runtime serves is left to it, that Status says so, and that
// pods run; that the socket is taken once it is stale; and that Status tells when another takes it away.
func TestNRISocketOfAnotherProcess(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{NoDaemon: true})
	path := n.Daemon.NRISocket()
	if err := os.MkdirAll(n.Daemon.NRI, 0o755); err != nil {
		t.Fatal(err)
	}
	other := listenNRI(t, path)
	restart(t, n)
	wantNRI(t, n, false, path, "io.containerd.nri.v1.nri", "nri.socketPath")
	n.RunPod(t).Run(t, n.Image(t, labimage.Demo))
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the other process lost its socket: %v", err)
	} else if err := conn.Close(); err != nil {
		t.Error(err)
	}
	// It ends as a killed process does, and leaves the file.
	other.SetUnlinkOnClose(false)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	restart(t, n)
	wantNRI(t, n, true)
	runPlugin(t, n)
	// containerd takes the place without a question when it starts.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	thief := listenNRI(t, path)
	wantNRI(t, n, false, path, "has taken the place", "io.containerd.nri.v1.nri")
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !exists(path) {
		t.Error("userns-shim removed the socket of another process when it ended")
	}
	if err := thief.Close(); err != nil {
		t.Error(err)
	}
	restart(t, n)
}

func listenNRI(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return listener
}

// TestNRIDisabled holds that nothing is there of it then.
func TestNRIDisabled(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{NRI: "enabled: false"}})
	n.RunPod(t).Run(t, n.Image(t, labimage.Demo))
	if exists(n.Daemon.NRISocket()) {
		t.Error("there is a socket for plugins")
	}
	resp, err := n.Runtime.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range resp.Status.Conditions {
		if c.Type == "NRIReady" {
			t.Errorf("Status has the condition %v", c)
		}
	}
}
