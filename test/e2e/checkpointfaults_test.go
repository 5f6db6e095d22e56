package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// heldCRIU is a criu of containerd's that tells when it runs, and goes on when it is let.
type heldCRIU struct{ path, dumping, release string }

// holdCRIU makes a directory of programs for containerd in which criu is a script that tells by the file dumping that it
// runs, waits for another file, and is the real one then. It waits for a minute at most.
func holdCRIU(t *testing.T) heldCRIU {
	t.Helper()
	tools := nodetest.Tools(t)
	dir := t.TempDir()
	held := heldCRIU{
		path:    dir + ":" + string(tools) + ":/usr/sbin:/usr/bin:/sbin:/bin",
		dumping: filepath.Join(dir, "dumping"), release: filepath.Join(dir, "release"),
	}
	script := fmt.Sprintf("#!/bin/sh\necho > %s\ni=0; while [ ! -e %s ] && [ $i -lt 1200 ]; do sleep 0.05; i=$((i+1)); done\nexec %s \"$@\"\n",
		held.dumping, held.release, tools.Path("criu"))
	if err := os.WriteFile(filepath.Join(dir, "criu"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return held
}

// letGo lets this criu and all further ones go on at once.
func (h heldCRIU) letGo() error { return os.WriteFile(h.release, nil, 0o600) }

// letGoAfter does so some time after criu has come up. The channel is closed then, or when the test is over.
func (h heldCRIU) letGoAfter(t *testing.T, pause time.Duration) (done <-chan struct{}) {
	t.Helper()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for !exists(h.dumping) && t.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(pause)
		if err := h.letGo(); err != nil {
			t.Error(err)
		}
	}()
	return gone
}

// TestCheckpointDeadline holds that a container runs on, and that nothing is left, when the time is over before
// CRIU is done.
func TestCheckpointDeadline(t *testing.T) {
	testkit.RequireCRIU(t)
	t.Parallel()
	criu := holdCRIU(t)
	n := ownNode(t, labnode.Options{Containerd: labnode.ContainerdOptions{SearchPath: criu.path}})
	pod := n.RunPod(t, nodetest.HostUsers)
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Shell(countsOn))
	awaitNumber(t, c, 3)
	done := criu.letGoAfter(t, 1500*time.Millisecond) // when the second is over, which begins before
	location, err := checkpointTo(t, n, c, 1)
	<-done
	wantError(t, err, codes.DeadlineExceeded, c.ID)
	wantEmpty(t, filepath.Dir(location))
	wantEmpty(t, filepath.Join(n.Daemon.Root, "checkpoints"))
	awaitNumber(t, c, lastNumber(t, c)+5)
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left in %s, %v", left, dir, err)
	}
}

// TestKilledDuringACheckpoint kills userns-shim while a container is frozen.
func TestKilledDuringACheckpoint(t *testing.T) {
	testkit.RequireCRIU(t)
	t.Parallel()
	criu := holdCRIU(t)
	n := ownNode(t, labnode.Options{Containerd: labnode.ContainerdOptions{SearchPath: criu.path}})
	c := n.RunPod(t, nodetest.HostUsers).Run(t, n.Image(t, labimage.Demo), nodetest.Shell(countsOn))
	awaitNumber(t, c, 3)
	location := filepath.Join(volume(t, n), "c.tar")
	done := make(chan error, 1)
	go func() {
		_, err := n.Runtime.CheckpointContainer(t.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: c.ID, Location: location})
		done <- err
	}()
	awaitFile(t, criu.dumping)
	if err := n.Daemon.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := criu.letGo(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Fatal("the checkpoint came to its end")
	}
	before := lastNumber(t, c)
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitNumber(t, c, before+5)
	wantEmpty(t, filepath.Join(n.Daemon.Root, "checkpoints"))
	wantEmpty(t, filepath.Dir(location))
	if _, err := checkpointTo(t, n, c, 0); err != nil {
		t.Errorf("a checkpoint after that: %v", err)
	}
}

// TestCheckpointWithARuntimeThatCannot has a handler whose OCI runtime does not know checkpoints.
func TestCheckpointWithARuntimeThatCannot(t *testing.T) {
	t.Parallel()
	tools := nodetest.Tools(t)
	plain := filepath.Join(t.TempDir(), "plain")
	script := "#!/bin/sh\n[ \"$1\" = features ] && exec echo '{\"ociVersionMin\":\"1.0.0\",\"ociVersionMax\":\"1.2.0\"}'\nexec " + tools.Path("runc") + ` "$@"` + "\n"
	if err := os.WriteFile(plain, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Handlers: "  plain: {runtime: io.containerd.runc.v2, binaryName: " + plain + "}"}})
	pod := n.RunPod(t, nodetest.HostUsers, nodetest.Handler("plain"))
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Shell(countsOn))
	_, err := checkpointTo(t, n, c, 0)
	wantError(t, err, codes.FailedPrecondition, "OCI runtime plain does not support it")
	wantError(t, checkpointPod(t, n, pod, volume(t, n), c), codes.FailedPrecondition, "OCI runtime plain")
}

// TestCheckpointOfATerminalAndASharedPIDNamespace restores what is unlike other containers.
func TestCheckpointOfATerminalAndASharedPIDNamespace(t *testing.T) {
	testkit.RequireCRIU(t)
	n := sharedNode(t)
	alone, together := []nodetest.PodOption{nodetest.HostUsers}, []nodetest.PodOption{nodetest.HostUsers, shareProcesses}
	for name, c := range map[string]struct {
		pod []nodetest.PodOption
		opt nodetest.ContainerOption
	}{
		"terminal":  {alone, withTTY},
		"stdin":     {alone, withStdin(false)},
		"read-only": {alone, func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.ReadonlyRootfs = true }},
		"user":      {alone, nodetest.User(1000, 1000)},
		"pid":       {together, func(*runtimeapi.ContainerConfig) {}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := n.RunPod(t, c.pod...)
			was := pod.Run(t, n.Image(t, labimage.Demo), c.opt, nodetest.Shell("i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"))
			awaitNumber(t, was, 3)
			archive, err := checkpointTo(t, n, was, 0)
			if name == "user" && !nodetest.HasSysResource(t) {
				wantError(t, err, codes.FailedPrecondition, "CRIU cannot", "rlimit", was.ID)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			last := lastNumber(t, was)
			pod.Remove(t)
			restored := n.RunPod(t, c.pod...).Run(t, archive, c.opt)
			awaitNumber(t, restored, last+5)
			if first := number(restored.Log(t)[0]); first < 3 || first > last+1 {
				t.Errorf("it goes on with %d, the checkpoint was between 3 and %d", first, last)
			}
			restored.Exec(t, "true")
		})
	}
}

// TestRestoreWhereThePIDIsTaken restores a container beside itself, in the same PID namespace.
func TestRestoreWhereThePIDIsTaken(t *testing.T) {
	testkit.RequireCRIU(t)
	n := sharedNode(t)
	pod := n.RunPod(t, nodetest.HostUsers, shareProcesses)
	was := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Shell(countsOn))
	awaitNumber(t, was, 3)
	archive, err := checkpointTo(t, n, was, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := pod.Create(t, archive)
	before := time.Now()
	wantError(t, c.TryStart(t.Context()), codes.FailedPrecondition, "CRIU", "a process id that the container had is taken", c.ID)
	if took := time.Since(before); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	awaitNumber(t, was, lastNumber(t, was)+5)
}
