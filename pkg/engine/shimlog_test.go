package engine_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit"
)

// TestShimThatWaitsForAReaderOfItsLog is ended: containerd gave up between the shim's start and its reading of the log. Until
// then the shim listens and answers nothing.
func TestShimThatWaitsForAReaderOfItsLog(t *testing.T) {
	l := newLab(t)
	b := l.newBox(l.pull(labimage.Demo), newID(), "sleep", "1000")
	bundle := b.startShimWithoutReader(t)
	shim := b.awaitShimAtLog(t, bundle)
	if err := os.RemoveAll(bundle); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := l.DeleteTask(t.Context(), b.group, b.id); !errdefs.IsNotFound(err) {
		t.Errorf("DeleteTask: %v, want not found", err)
	}
	awaitGone(t, shim)
	t.Logf("the shim has ended after %v", time.Since(began))
}

// startShimWithoutReader starts the shim of a box as containerd does, and returns its bundle, in which nobody reads the log.
func (b *box) startShimWithoutReader(t *testing.T) string {
	t.Helper()
	bundle := filepath.Join(b.l.containerd.State, "bundle-"+b.id)
	if err := os.Mkdir(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(b.spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(bundle, "log"), 0o600); err != nil {
		t.Fatal(err)
	}
	address := b.l.containerd.Address
	params, err := proto.Marshal(&bootapi.BootstrapParams{
		InstanceID: b.id, Namespace: labnode.Namespace, SocketDir: proto.String(filepath.Join(filepath.Dir(address), "s")),
		ContainerdGrpcAddress: address, ContainerdTtrpcAddress: address + ".ttrpc",
	})
	if err != nil {
		t.Fatal(err)
	}
	start := exec.Command(testkit.RequireBin(t, "containerd-shim-runc-v2"),
		"-namespace", labnode.Namespace, "-id", b.id, "-address", address, "start")
	start.Dir, start.Stdin = bundle, bytes.NewReader(params)
	start.Env = append(os.Environ(), "TTRPC_ADDRESS="+address+".ttrpc")
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("start the shim: %v: %s", err, out)
	}
	return bundle
}

// awaitShimAtLog returns the shim's process once it has looked up its log.
func (b *box) awaitShimAtLog(t *testing.T, bundle string) (pid int) {
	t.Helper()
	for range 500 {
		links, err := filepath.Glob("/proc/[0-9]*/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			if target, _ := os.Readlink(link); target != filepath.Join(bundle, "log") {
				continue
			}
			if pid, err = strconv.Atoi(strings.Split(link, "/")[2]); err != nil {
				t.Fatal(err)
			}
			return pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no shim has looked up its log")
	return 0
}
